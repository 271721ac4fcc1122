"""The plan of a run that corrects a cohort: the scans by each of its methods, on one mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from biascorr_pydra import __version__, bids, weights
from biascorr_pydra.anatomy import brain, tissue
from biascorr_pydra.bids import CORRECTED, Job
from biascorr_pydra.correction.options import DEFAULTS, CorrectionOptions
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images.files import Hashes
from biascorr_pydra.judge import ACQUIRED, CANNOT_TELL, SAME
from biascorr_pydra.methods.spec import MethodSpec

from .plan import Plan, check_out_dir, digest, hashes_of, is_complete, key_of, problems_of, unfinished

__all__ = ["SHARED", "CorrectionPlan", "Settings", "plan_correction"]

GIVEN = "given"
#: Names in the output folder, or in the judge's records, that are no method's.
RESERVED = {bids.JUDGE, bids.NORMALIZED, ACQUIRED, SAME, CANNOT_TELL}
#: Options of a correction that a run over a cohort offers, for all of its methods.
SHARED = ("device", "seed", "gate", "fallback")
#: Options in every scan's key; others are there only if they are not the default, so that finished work stays finished.
IN_EVERY_KEY = ("seed", "gate", "fallback")
#: Options that are not in the scans' keys: where it is computed, and what the methods' and the scan's own parts cover.
NOT_IN_KEY = ("device", "method", "preset", "options", "metadata")


@dataclass(frozen=True)
class Settings:
    """The choices of one cohort run.

    Attributes
    ----------
    options : CorrectionOptions
        Those of all corrections; the methods are ``methods``, and each scan's metadata are its own.
    """

    bids_dir: Path
    out_dir: Path
    methods: tuple[MethodSpec, ...]
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    skull_strip: str = "auto"
    segmentation: str = "atropos"
    derivatives: Path | None = None
    options: CorrectionOptions = DEFAULTS
    overwrite: bool = False
    allow_undescribed: bool = False
    scan_pages: bool = True

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("skull-strip", self.skull_strip, brain.METHODS),
            ("segmentation", self.segmentation, tissue.METHODS),
        ):
            if value not in allowed:
                raise InvalidParameterError(
                    f"unknown --{option}", value=repr(value), next_step=f"Choose one of: {', '.join(allowed)}."
                )
        if not self.methods:
            raise InvalidParameterError("at least one --method is needed")
        if len(set(self.labels)) < len(self.labels):
            raise InvalidParameterError("each --method once", value=", ".join(self.labels))
        if taken := sorted({*self.labels} & RESERVED):
            raise InvalidParameterError(
                "a method cannot have a name that the output folder uses for something else",
                value=taken[0],
                next_step="Rename the method in the package that it comes from.",
            )
        if GIVEN in (self.skull_strip, self.segmentation) and self.derivatives is None:
            raise InvalidParameterError(
                "masks or segmentations that are given are looked up in a derivative data set",
                next_step="Name it with --derivatives.",
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """Folder names of the methods' data sets."""
        return tuple(spec.label for spec in self.methods)

    @property
    def needed(self) -> dict[str, set[str]]:
        """What has to be given with each scan, and the kinds of files that do."""
        choices = {"segmentation": (self.segmentation, {"dseg", *bids.TISSUES}), "mask": (self.skull_strip, {"mask"})}
        return {name: kinds for name, (choice, kinds) in choices.items() if choice == GIVEN}


@dataclass(frozen=True)
class CorrectionPlan(Plan):
    """Scans and methods of one run.

    Attributes
    ----------
    settings : Settings
    contents : job.relative -> SHA-256 over the scan and what was given for it, part of the cache key of every step
    sources : job.relative -> SHA-256 of the scan
    works : (job.relative, label) -> all that the key of the work is a hash of
    """

    settings: Settings
    contents: Mapping[str, str]
    sources: Mapping[str, str]
    works: Mapping[tuple[str, str], Mapping[str, Any]]

    @property
    def tasks(self) -> list[tuple[Job, tuple[MethodSpec, ...]]]:
        """As ``pending``, with the methods themselves."""
        by_label = {spec.label: spec for spec in self.settings.methods}
        return [(job, tuple(by_label[label] for label in labels)) for job, labels in self.pending]


def plan_correction(
    settings: Settings, implementation: Callable[[str, str | None], str], *, rerun: bool = False
) -> CorrectionPlan:
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
    implementations = {spec: implementation(spec.method, spec.preset) for spec in settings.methods}
    jobs, skipped = bids.survey(
        settings.bids_dir,
        participants=settings.participants,
        sessions=settings.sessions,
        suffixes=settings.suffixes,
        derivatives=settings.derivatives,
        allow_undescribed=settings.allow_undescribed,
    )
    folders = (*settings.labels, bids.JUDGE)
    check_out_dir(settings.out_dir, settings.bids_dir, folders, overwrite=settings.overwrite)
    hashes = hashes_of(settings.out_dir)
    inputs = {job.relative: _inputs(job, settings, hashes) for job in jobs}
    works = {
        (job.relative, spec.label): {**inputs[job.relative], **_work(settings, spec, implementations[spec])}
        for job in jobs
        for spec in settings.methods
    }
    keys = {name: key_of(work) for name, work in works.items()}
    problems = problems_of(jobs, CORRECTED, settings.needed)

    def is_done(job: Job, label: str) -> bool:
        dataset = settings.out_dir / label
        return not rerun and is_complete(CORRECTED.record_file(job, dataset), dataset, keys[job.relative, label])

    return CorrectionPlan(
        out_dir=settings.out_dir,
        labels=settings.labels,
        outputs=CORRECTED,
        jobs=tuple(jobs),
        keys=keys,
        problems=problems,
        skipped=skipped,
        pending=unfinished(jobs, settings.labels, problems, is_done),
        whole=not (settings.participants or settings.sessions or settings.suffixes),
        hashes=hashes,
        settings=settings,
        contents={
            scan: key_of({name: content[name] for name in ("source", "given")}) for scan, content in inputs.items()
        },
        sources={scan: content["source"] for scan, content in inputs.items()},
        works=works,
    )


def _inputs(job: Job, settings: Settings, hashes: Hashes) -> dict[str, Any]:
    """Everything about the scan's inputs that its results depend on."""
    given = {kind: digest(path, hashes) for kind, path in sorted(job.given.items())}
    return {
        "package": __version__,
        "source": digest(job.source, hashes),
        "suffix": job.suffix,
        "given": given if GIVEN in (settings.skull_strip, settings.segmentation) else {},
        "skull_strip": settings.skull_strip,
        "segmentation": settings.segmentation,
        **_options_in_key(settings.options),
        "warnings": job.warnings,
        "metadata": job.metadata,
        "software": {name: version(name) for name in ("antspyx", "deepbet")},
    }


def _options_in_key(options: CorrectionOptions) -> dict[str, Any]:
    """Options that a result depends on."""
    chosen = {name: value for name, value in asdict(options).items() if name not in NOT_IN_KEY}
    return {name: value for name, value in chosen.items() if name in IN_EVERY_KEY or value != getattr(DEFAULTS, name)}


def _work(settings: Settings, spec: MethodSpec, implementation: str) -> dict[str, str]:
    """Everything about the method that its results depend on, and about what segments the scan."""
    work = {"method": str(spec), "implementation": implementation, "tissue": "of its own image"}
    if settings.segmentation in tissue.NETWORKS:
        work["segmenter"] = weights.sha256_of(tissue.NETWORKS[settings.segmentation])
    return work
