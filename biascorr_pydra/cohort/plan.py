"""What a cohort run has to do: which scans, by which methods, and which of that is done already.

A scan counts as done by a method when its metrics file carries the key of exactly this work (image bytes, method,
version, weights, parameters, mask and segmentation) and every file it lists is there at its size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from biascorr_pydra import __version__, bids, lock, weights
from biascorr_pydra.anatomy import brain, tissue
from biascorr_pydra.bids import Job
from biascorr_pydra.errors import InvalidParameterError, OutputError
from biascorr_pydra.images import files
from biascorr_pydra.images.files import Hashes
from biascorr_pydra.methods.spec import NO_FALLBACK, MethodSpec
from biascorr_pydra.resources import DEVICES

__all__ = ["Plan", "Settings", "is_done", "make_plan", "metrics_complete"]

BIDS_ASIDE = ("derivatives", "sourcedata", "code")


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
    reference_method: str = "n4"
    allow_undescribed: bool = False
    gate: bool = True
    fallback: str = NO_FALLBACK
    scan_pages: bool = True

    @property
    def reference(self) -> MethodSpec:
        """By whose image the tissues are found: the only method's own, or the reference method's for several."""
        return self.methods[0] if len(self.methods) == 1 else MethodSpec(self.reference_method)

    def __post_init__(self):
        for option, value, allowed in (
            ("skull-strip", self.skull_strip, brain.METHODS),
            ("segmentation", self.segmentation, tissue.METHODS),
            ("device", self.device, DEVICES),
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
    contents : job.relative -> SHA-256 over the scan and what was given for it, part of the cache key of every step
    sources : job.relative -> SHA-256 of the scan
    problems : job.relative -> why the scan cannot even be begun
    skipped : path in the data set -> why the image is not one to correct
    pending : (job, methods that are not done yet), for the jobs that have any
    hashes : those found on the way, to be kept for the next run
    """

    settings: Settings
    jobs: tuple[Job, ...]
    keys: Mapping[tuple[str, str], str]
    contents: Mapping[str, str]
    sources: Mapping[str, str]
    problems: Mapping[str, str]
    skipped: Mapping[str, str]
    pending: tuple[tuple[Job, tuple[MethodSpec, ...]], ...]
    hashes: Hashes


def make_plan(settings: Settings, implementation: Callable[[str, str | None], str], *, rerun: bool = False) -> Plan:
    """Index the data set and find what is left to do. Touches nothing.

    Parameters
    ----------
    settings : Settings
    implementation : (method, preset) -> text naming version, weights and parameters, of the gate and the fallback too;
        raises for an unknown one
    rerun : bool
        Take everything as not done.

    Raises
    ------
    BiasCorrError
        The data set, the selection, a method or the output folder cannot be used.
    """
    reference = f"{settings.reference} {implementation(settings.reference.method, settings.reference.preset)}"
    implementations = {spec: implementation(spec.method, spec.preset) for spec in settings.methods}
    jobs, skipped = bids.survey(
        settings.bids_dir,
        participants=settings.participants,
        sessions=settings.sessions,
        suffixes=settings.suffixes,
        derivatives=settings.derivatives,
        allow_undescribed=settings.allow_undescribed,
    )
    _check_out_dir(settings)
    keys, contents, sources, pending = {}, {}, {}, []
    problems = _problems(jobs, settings)
    hashes = Hashes(settings.out_dir / lock.FOLDER / "hashes.json")
    for job in jobs:
        inputs = _fingerprint(job, settings, hashes)
        sources[job.relative] = inputs["source"]
        contents[job.relative] = _key({name: inputs[name] for name in ("source", "given")})
        for spec in settings.methods:
            work = {"method": str(spec), "implementation": implementations[spec]}
            if settings.segmentation not in ("given", "none"):
                work["reference"] = reference
            if settings.segmentation == "deepnormalize":
                work["segmenter"] = weights.sha256_of("deepnormalize")
            keys[job.relative, spec.label] = _key({**inputs, **work})
        left = tuple(
            spec
            for spec in settings.methods
            if rerun or not is_done(job, settings.out_dir / spec.label, keys[job.relative, spec.label])
        )
        if left and job.relative not in problems:
            pending.append((job, left))
    return Plan(settings, tuple(jobs), keys, contents, sources, problems, skipped, tuple(pending), hashes)


def _problems(jobs: Sequence[Job], settings: Settings) -> dict[str, str]:
    """Scans that cannot be begun, and why: files that are not there, two scans with one name for their results."""
    needed = [
        ("mask", settings.skull_strip, {"mask"}),
        ("segmentation", settings.segmentation, {"dseg", *bids.TISSUES}),
    ]
    problems, first = {}, {}
    for job in jobs:
        missing = [path for path in (job.source, *job.given.values()) if not path.is_file()]
        if missing:
            problems[job.relative] = (
                f"UnreadableImageError: {missing[0]}: the file's content is not here (a broken link?). "
                "Fetch it, for instance with `datalad get`."
            )
        for what, choice, kinds in needed:
            if choice == "given" and not kinds & set(job.given):
                problems[job.relative] = (
                    f"BIDSError: {job.source}: no {what} of this scan was found. "
                    "Check --derivatives, or do without 'given'."
                )
        name = bids.output_paths(job, ".")["metrics"]
        other = first.setdefault(name, job.relative)
        if other != job.relative:
            rule = "BIDSError: {} and {} are the same scan to BIDS. Remove one."
            problems[other] = problems[job.relative] = rule.format(other, job.relative)
    return problems


def is_done(job: Job, dataset: Path, key: str, run_id: str | None = None) -> bool:
    """Whether the outputs in this data set are complete and of exactly this work, and, if asked, of this run."""
    return metrics_complete(bids.output_paths(job, dataset)["metrics"], dataset, key, run_id)


def metrics_complete(metrics: Path, dataset: Path, key: str, run_id: str | None = None) -> bool:
    """As :func:`is_done`, by the path of the metrics file."""
    try:
        marker = json.loads(metrics.read_text())["work"]
        return (
            marker["key"] == key
            and run_id in (None, marker["run_id"])
            and all((dataset / name).stat().st_size == size for name, size in marker["files"].items())
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
    files.check_writable(existing)
    inside = out.relative_to(source).parts if out.is_relative_to(source) else ()
    if inside and inside[0] not in BIDS_ASIDE:
        raise OutputError(
            "an output folder inside the data set belongs under derivatives/, or it would be taken for data",
            file=out,
            next_step=f"Use {source / 'derivatives' / inside[-1]}, or a folder elsewhere.",
        )
    for spec in settings.methods:
        dataset = settings.out_dir / spec.label
        bids.check_ours(dataset, overwrite=settings.overwrite)
        if dataset.is_dir():
            files.check_writable(dataset)


def _fingerprint(job: Job, settings: Settings, hashes: Hashes) -> dict:
    """Everything about the scan's inputs that its results depend on."""
    given = {kind: _digest(path, hashes) for kind, path in sorted(job.given.items())}
    return {
        "package": __version__,
        "source": _digest(job.source, hashes),
        "suffix": job.suffix,
        "given": given if "given" in (settings.skull_strip, settings.segmentation) else {},
        "skull_strip": settings.skull_strip,
        "segmentation": settings.segmentation,
        "seed": settings.seed,
        "gate": settings.gate,
        "fallback": settings.fallback,
        "warnings": job.warnings,
        "metadata": job.metadata,
        "software": {name: version(name) for name in ("antspyx", "deepbet")},
    }


def _digest(path: Path, hashes: Hashes) -> str:
    try:
        return hashes.sha256(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"  # the scan then fails where it is read, with its own message


def _key(content: Mapping) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
