"""What a run over a cohort has to do: which scans, into which data sets, and which of that is done already.

A scan counts as done in a data set when its record there carries the key of exactly this work and every file that the
record lists is there at its size. The key is a hash over everything that the result depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biascorr_pydra import bids, lock
from biascorr_pydra.bids import Job, Outputs
from biascorr_pydra.errors import OutputError
from biascorr_pydra.images.files import Hashes, check_writable

__all__ = [
    "Plan",
    "check_out_dir",
    "digest",
    "hashes_of",
    "is_complete",
    "key_of",
    "problems_of",
    "unfinished",
    "work_of",
]

BIDS_ASIDE = ("derivatives", "sourcedata", "code")


@dataclass(frozen=True)
class Plan:
    """Scans of one run, and the data sets that are made of them.

    Attributes
    ----------
    out_dir : where the data sets lie, and the status table
    labels : folder names of the data sets, which is what the status table calls methods
    outputs : the files that a scan gets in each of them
    jobs : the scans
    keys : (job.relative, label) -> key of the work
    problems : job.relative -> why the scan cannot even be begun
    skipped : path in the data set -> why the image is none to work on
    pending : (job, labels that are not done yet), for the jobs that have any
    whole : bool
        Whether all scans of the data set were asked for, so that what the table says of others is out of date.
    hashes : those of the files read for the plan, to be kept for the next run
    """

    out_dir: Path
    labels: tuple[str, ...]
    outputs: Outputs
    jobs: tuple[Job, ...]
    keys: Mapping[tuple[str, str], str]
    problems: Mapping[str, str]
    skipped: Mapping[str, str]
    pending: tuple[tuple[Job, tuple[str, ...]], ...]
    whole: bool
    hashes: Hashes

    def record_file(self, job: Job, label: str) -> Path:
        """The file that marks a scan as complete in a data set, relative to ``out_dir``."""
        return self.outputs.record_file(job, label)

    def is_done(self, job: Job, label: str, run_id: str | None = None) -> bool:
        """Whether a scan's files in a data set are complete and of exactly this work, and, if asked, of this run."""
        record = self.out_dir / self.record_file(job, label)
        return is_complete(record, self.out_dir / label, self.keys[job.relative, label], run_id)


def is_complete(record: Path, dataset: Path, key: str, run_id: str | None = None) -> bool:
    """Whether a scan's record is of this work (and this run), and all files that it lists are there at their size."""
    work = work_of(record, dataset)
    return work is not None and work["key"] == key and run_id in (None, work["run_id"])


def work_of(record: Path, dataset: Path) -> dict[str, Any] | None:
    """The work that a scan's record is of, whatever it was; None unless all files that it lists are there, whole."""
    try:
        work = json.loads(record.read_text())["work"]
        whole = all((dataset / name).stat().st_size == size for name, size in work["files"].items())
        return work if whole and {"key", "run_id"} <= work.keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent or damaged: to be made again


def unfinished(
    jobs: Sequence[Job], labels: Sequence[str], problems: Collection[str], is_done: Callable[[Job, str], bool]
) -> tuple[tuple[Job, tuple[str, ...]], ...]:
    """The scans that can be begun, each with the data sets in which it is not done."""
    left = [
        (job, tuple(label for label in labels if not is_done(job, label)))
        for job in jobs
        if job.relative not in problems
    ]
    return tuple((job, missing) for job, missing in left if missing)


def problems_of(
    jobs: Sequence[Job], outputs: Outputs, needed: Mapping[str, Collection[str]] | None = None
) -> dict[str, str]:
    """Scans that cannot be begun, and why: files that are not there, two scans with one name for their results.

    Parameters
    ----------
    jobs, outputs
    needed : what is to be given with each scan ("mask") -> kinds of ``Job.given``, of which one is enough
    """
    problems: dict[str, str] = {}
    first: dict[Path, str] = {}
    for job in jobs:
        if problem := _problem_of(job, needed or {}):
            problems[job.relative] = problem
        twin = first.setdefault(outputs.record_file(job, "."), job.relative)
        if twin != job.relative:
            rule = f"BIDSError: {twin} and {job.relative} are the same scan to BIDS. Remove one."
            problems[twin] = problems[job.relative] = rule
    return problems


def _problem_of(job: Job, needed: Mapping[str, Collection[str]]) -> str | None:
    for companion, kinds in needed.items():
        if not set(kinds) & set(job.given):
            return (
                f"BIDSError: {job.source}: no {companion} of this scan was found. "
                "Check --derivatives, or do without 'given'."
            )
    for path in (job.source, *job.given.values()):
        if not path.is_file():
            return (
                f"UnreadableImageError: {path}: the file's content is not here (a broken link?). "
                "Fetch it, for instance with `datalad get`."
            )
    return None


def check_out_dir(out_dir: Path, bids_dir: Path, labels: Sequence[str], *, overwrite: bool = False) -> None:
    """Refuse an output folder that cannot be used, before anything is written into it.

    Raises
    ------
    OutputError
        It is the input data set or lies among its data, lies under a file, or cannot be written to.
    OutputExistsError
        It holds something that this package did not write, and ``overwrite`` is false.
    """
    out, source = out_dir.resolve(), bids_dir.resolve()
    if out == source or any((out / label).resolve() == source for label in labels):
        raise OutputError("the output folder is the input data set", file=out, next_step="Give another --out-dir.")
    existing = next(path for path in (out, *out.parents) if path.exists())
    if not existing.is_dir():
        raise OutputError("the output folder cannot be made under a file", file=existing)
    check_writable(existing)
    inside = out.relative_to(source).parts if out.is_relative_to(source) else ()
    if inside and inside[0] not in BIDS_ASIDE:
        raise OutputError(
            "an output folder inside the data set belongs under derivatives/, or it would be taken for data",
            file=out,
            next_step=f"Use {source / 'derivatives' / inside[-1]}, or a folder elsewhere.",
        )
    for label in labels:
        dataset = out_dir / label
        bids.check_ours(dataset, overwrite=overwrite)
        if dataset.is_dir():
            check_writable(dataset)


# --- keys


def hashes_of(out_dir: Path) -> Hashes:
    """SHA-256 of files, as far as an earlier run into this folder has kept them."""
    return Hashes(out_dir / lock.FOLDER / "hashes.json")


def digest(path: Path, hashes: Hashes) -> str:
    """SHA-256 of a file for a key; words where the file cannot be read."""
    try:
        return hashes.sha256(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"  # the scan then fails where it is read, with its own message


def key_of(content: Mapping[str, Any]) -> str:
    """One text for everything that a result depends on."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
