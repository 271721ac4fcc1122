"""What methods have delivered of a scan into an output folder, by their published records: what the judge compares."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biascorr_pydra import bids
from biascorr_pydra.bids import CORRECTED, NOT_CORRECTED, Job

from .plan import is_complete

__all__ = ["UNREADABLE", "Case", "Delivered", "delivered", "job_of", "raw_of", "scans"]

OTHER_SOURCE = "made of another version of the acquired image than the last one"
RECORDS = "*/sub-*/**/*_metrics.json"
#: What a record that is absent, damaged or another one's raises.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True)
class Delivered:
    """What one method has delivered of a scan, complete.

    Attributes
    ----------
    label : folder name of the method's data set
    key : what the work is called
    source_sha256 : of the acquired image that it was made of
    unapplied : why the image was delivered as acquired; empty where a field was divided out
    exact : whether the corrected image times the field is the acquired one
    paths : of the images, by kind
    written_ns : when the record was written
    """

    label: str
    key: str
    source_sha256: str
    unapplied: str
    exact: bool
    paths: Mapping[str, Path]
    written_ns: int


@dataclass(frozen=True)
class Case:
    """The images of a scan that are compared, and those that are not, with the reasons."""

    present: tuple[Delivered, ...]
    left_out: Mapping[str, str]
    not_compared: Mapping[str, str]

    @property
    def compared(self) -> list[Delivered]:
        """What was made of the last version of the acquired image."""
        return [one for one in self.present if one.label not in self.not_compared]

    @property
    def judged(self) -> dict[str, str]:
        """Label -> key of the work, of the methods whose images are compared."""
        aside = {*self.left_out, *self.not_compared}
        return {one.label: one.key for one in self.present if one.label not in aside}

    @property
    def delivered(self) -> dict[str, str]:
        """Label -> key of the work, of all methods, whatever became of their images."""
        return {one.label: one.key for one in self.present}

    @classmethod
    def of(cls, out_dir: Path, job: Job) -> Case:
        """What lies in the methods' data sets of a scan now."""
        present = tuple(delivered(out_dir, job))
        last = max(present, key=lambda one: (one.written_ns, one.label), default=None)
        other = {one.label: OTHER_SOURCE for one in present if last and one.source_sha256 != last.source_sha256}
        left_out = {one.label: one.unapplied for one in present if one.unapplied and one.label not in other}
        return cls(present, left_out, other)


def delivered(out_dir: Path, job: Job) -> Iterator[Delivered]:
    """What lies of a scan, complete, in the methods' data sets."""
    for dataset in sorted(path for path in out_dir.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            one = _read(dataset, job)
        except UNREADABLE:
            continue  # not of this method, or damaged: the next run makes it again
        if is_complete(CORRECTED.record_file(job, dataset), dataset, one.key):
            yield one


def _read(dataset: Path, job: Job) -> Delivered:
    """What a data set's records say of a scan; raises one of UNREADABLE."""
    paths = CORRECTED.paths(job, dataset)
    record_file = paths[CORRECTED.record]
    record = json.loads(record_file.read_text())
    about = json.loads(bids.sidecar(paths["corrected"]).read_text())
    gate = record["gate"]
    passed_on = gate["applied"] == NOT_CORRECTED
    return Delivered(
        label=dataset.name,
        key=record["work"]["key"],
        source_sha256=about.get("SourceSHA256", ""),
        unapplied=f"{gate['verdict']} by the gate: delivered as acquired" if passed_on else "",
        exact=passed_on or not (gate.get("fallback_verdict") or _is_rescaled(about.get("EstimateRecord"))),
        paths=paths,
        written_ns=record_file.stat().st_mtime_ns,
    )


def _is_rescaled(estimate: Any) -> bool:
    """Whether the corrector's ``finish`` changed the intensities after the division."""
    return isinstance(estimate, Mapping) and estimate.get("rescale_to") is not None


def scans(out_dir: Path) -> dict[str, Job]:
    """The scans that any method has delivered, by their path in the data set that they are of."""
    jobs = {}
    for path in out_dir.glob(RECORDS):
        try:
            job = job_of(path)
            jobs[job.relative] = job
        except UNREADABLE:
            continue
    return jobs


def job_of(record_file: Path) -> Job:
    """The scan that a record is of; raises one of UNREADABLE."""
    record = json.loads(record_file.read_text())
    relative = record["source"].split(":", 2)[2]
    entities = tuple((str(key), str(value)) for key, value in record["entities"].items())
    return Job(Path(relative), relative, entities, record["suffix"])


def raw_of(dataset: Path) -> Path:
    """The data set that a derivative data set says it was made of; itself where it does not say."""
    try:
        link = json.loads((dataset / bids.DATASET_DESCRIPTION).read_text())["DatasetLinks"]["raw"]
    except UNREADABLE:
        return dataset
    return dataset / str(link)
