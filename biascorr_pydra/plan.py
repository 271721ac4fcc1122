"""What a cohort run has to do: which scans, by which methods, and which of that is done already.

A scan counts as done by a method when its metrics file carries the key of exactly this work (image bytes, method,
version, weights, parameters, mask and segmentation) and every file it lists is there at its size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import __version__, bids, image
from .bids import Job
from .errors import InvalidParameterError, OutputError

__all__ = ["MethodSpec", "Plan", "Settings", "is_done", "make_plan"]

SKULL_STRIP = ("auto", "deepbet", "template", "given", "none")
SEGMENTATION = ("atropos", "kmeans", "given", "none")


@dataclass(frozen=True)
class MethodSpec:
    """A correction method as asked for: ``name`` or ``name:preset``."""

    method: str
    preset: str | None = None

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        name, _, preset = text.partition(":")
        return cls(name, preset or None)

    def __str__(self) -> str:
        return f"{self.method}:{self.preset}" if self.preset else self.method

    @property
    def label(self) -> str:
        """Folder name of its derivative data set."""
        return f"{self.method}_{self.preset}" if self.preset else self.method


@dataclass(frozen=True)
class Settings:
    """The choices of one cohort run."""

    bids_dir: Path
    out_dir: Path
    methods: tuple[MethodSpec, ...]
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    skull_strip: str = "auto"
    segmentation: str = "atropos"
    derivatives: Path | None = None
    device: str = "auto"
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self):
        for option, value, allowed in (
            ("skull-strip", self.skull_strip, SKULL_STRIP),
            ("segmentation", self.segmentation, SEGMENTATION),
        ):
            if value not in allowed:
                raise InvalidParameterError(
                    f"unknown --{option}", value=repr(value), next_step=f"Choose one of: {', '.join(allowed)}."
                )
        if not self.methods:
            raise InvalidParameterError("at least one --method is needed")
        labels = [spec.label for spec in self.methods]
        if len(set(labels)) < len(labels):
            raise InvalidParameterError("each --method once", value=", ".join(labels))
        if "given" in (self.skull_strip, self.segmentation) and self.derivatives is None:
            raise InvalidParameterError(
                "masks or segmentations that are given are looked up in a derivative data set",
                next_step="Name it with --derivatives.",
            )


@dataclass(frozen=True)
class Plan:
    """Jobs and methods of one run.

    Attributes
    ----------
    settings : Settings
    jobs : tuple of Job
    keys : (job.relative, method label) -> key of the work
    pending : (job, methods that are not done yet), for the jobs that have any
    """

    settings: Settings
    jobs: tuple[Job, ...]
    keys: Mapping[tuple[str, str], str]
    pending: tuple[tuple[Job, tuple[MethodSpec, ...]], ...]


def make_plan(settings: Settings, implementation: Callable[[str, str | None], str], *, rerun: bool = False) -> Plan:
    """Index the data set and find what is left to do. Touches nothing.

    Parameters
    ----------
    settings : Settings
    implementation : (method, preset) -> text naming version, weights and parameters; raises for an unknown one
    rerun : bool
        Take everything as not done.

    Raises
    ------
    BiasCorrError
        The data set, the selection, a method or the output folder cannot be used.
    """
    implementations = {spec: implementation(spec.method, spec.preset) for spec in settings.methods}
    jobs = tuple(
        bids.index(
            settings.bids_dir,
            participants=settings.participants,
            sessions=settings.sessions,
            suffixes=settings.suffixes,
            derivatives=settings.derivatives,
        )
    )
    _check_out_dir(settings)
    keys, pending = {}, []
    for job in jobs:
        inputs = _fingerprint(job, settings)
        for spec in settings.methods:
            keys[job.relative, spec.label] = _key(inputs, str(spec), implementations[spec])
        left = tuple(
            spec
            for spec in settings.methods
            if rerun or not is_done(job, settings.out_dir / spec.label, keys[job.relative, spec.label])
        )
        if left:
            pending.append((job, left))
    return Plan(settings, jobs, keys, tuple(pending))


def is_done(job: Job, dataset: Path, key: str) -> bool:
    """Whether the outputs in this data set are complete and of exactly this work."""
    metrics = bids.output_paths(job, dataset)["metrics"]
    try:
        marker = json.loads(metrics.read_text())["work"]
        return marker["key"] == key and all(
            (dataset / name).stat().st_size == size for name, size in marker["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # absent or damaged: to be made again


def _check_out_dir(settings: Settings) -> None:
    out, source = settings.out_dir.resolve(), settings.bids_dir.resolve()
    if out == source or any((out / spec.label).resolve() == source for spec in settings.methods):
        raise OutputError("the output folder is the input data set", file=out, next_step="Give another --out-dir.")
    existing = next(path for path in (out, *out.parents) if path.exists())
    if not existing.is_dir():
        raise OutputError("the output folder cannot be made under a file", file=existing)
    image.check_writable(existing)
    for spec in settings.methods:
        bids.check_ours(settings.out_dir / spec.label, overwrite=settings.overwrite)


def _fingerprint(job: Job, settings: Settings) -> dict:
    """Everything about the scan's inputs that its results depend on."""
    given = {kind: _digest(path) for kind, path in sorted(job.given.items())}
    return {
        "package": __version__,
        "source": _digest(job.source),
        "suffix": job.suffix,
        "given": given if "given" in (settings.skull_strip, settings.segmentation) else {},
        "skull_strip": settings.skull_strip,
        "segmentation": settings.segmentation,
        "seed": settings.seed,
    }


def _digest(path: Path) -> str:
    try:
        return image.sha256(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"  # the scan then fails where it is read, with its own message


def _key(inputs: Mapping, method: str, implementation: str) -> str:
    text = json.dumps({**inputs, "method": method, "implementation": implementation}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
