"""Judge the scans of an output folder from their published files, whoever published them and when.

A scan's record in OUT/judge says which work of which methods it was made of. Where that differs from what lies in the
methods' data sets, or another version of the judge made it, it is made anew; so nothing has to be known of the run.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra import bids
from biascorr_pydra.bids import CORRECTED, JUDGED, NOT_CORRECTED, Job
from biascorr_pydra.images import nifti
from biascorr_pydra.images.files import sha256
from biascorr_pydra.judge import ACQUIRED, JUDGE_VERSION, Judgement, judge_images

from .plan import is_complete, key_of
from .publish import publish

__all__ = ["judge_rest", "judge_scan", "prepare_judge", "unjudged"]

NO_MASK = "there is no brain mask: the corrections were made without skull stripping"
NO_ACQUIRED = (
    "the acquired image cannot be had from the corrected ones, whose intensities were rescaled or may have been, "
    "and it is no longer where it was"
)
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

    @property
    def key(self) -> str:
        """What this judgement is called: another one where anything that it is made of differs."""
        return key_of({"version": JUDGE_VERSION, "delivered": self.delivered, "aside": [*self.not_compared]})

    @classmethod
    def of(cls, out_dir: Path, job: Job) -> Case:
        """What lies in the methods' data sets of a scan now."""
        present = tuple(_delivered(out_dir, job))
        last = max(present, key=lambda one: (one.written_ns, one.label), default=None)
        other = {one.label: OTHER_SOURCE for one in present if last and one.source_sha256 != last.source_sha256}
        left_out = {one.label: one.unapplied for one in present if one.unapplied and one.label not in other}
        return cls(present, left_out, other)


def judge_scan(out_dir: Path, job: Job, *, run_id: str | None = None) -> Path | None:
    """Compare what the methods have delivered of a scan; nothing is done where that has been done.

    Parameters
    ----------
    out_dir : folder with the methods' data sets; the judge's is made beside them
    job : Job
    run_id : the run that does it

    Returns
    -------
    Path of the record; None where no method has delivered anything, and then no earlier record stays.

    Raises
    ------
    UnreadableImageError
        A published image is damaged.
    OutputExistsError, OutputError
        The judge's folder is not this package's, or cannot be written to.
    """
    started = time.perf_counter()
    case, record = Case.of(out_dir, job), JUDGED.record_file(job, out_dir / bids.JUDGE)
    if not case.present:
        _forget(job, out_dir)
        return None
    if is_complete(record, out_dir / bids.JUDGE, case.key):
        return record
    if not (out_dir / bids.JUDGE / bids.DATASET_DESCRIPTION).is_file():
        prepare_judge(out_dir, _raw_of(out_dir / case.present[0].label))
    images = _images(out_dir, case, job)
    judgement, affine = _judge(case, job, images)
    content = _record(case, job, judgement)
    names = [*images]
    if ACQUIRED not in names:
        content["not_compared"][ACQUIRED] = NO_ACQUIRED
    with tempfile.TemporaryDirectory(prefix="biascorr-judge-") as folder:
        files = {}
        if (img := judgement.tissue_image(affine)) is not None:
            files["dseg"] = Path(folder) / "dseg.nii.gz"
            nifti.save(img, files["dseg"])
        content["runtime_s"] = round(time.perf_counter() - started, 3)
        about = {"judge": {"Name": "consensus", "Version": JUDGE_VERSION, "Images": names}}
        return publish(job, JUDGED, out_dir / bids.JUDGE, files, about, content, key=case.key, run_id=run_id)


def unjudged(out_dir: Path) -> list[Job]:
    """Scans whose record is not there, or not of what their methods have delivered; reads every record there is."""
    jobs = _scans(out_dir)
    return [job for _, job in sorted(jobs.items()) if not _is_judged(out_dir, job)]


def judge_rest(
    out_dir: Path, *, run_id: str | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """Judge every scan of a folder that is not, and remove the records of scans that no method has delivered.

    Parameters
    ----------
    out_dir : folder with the methods' data sets
    run_id : the run that does it
    progress : called with the number of scans judged, and to judge, before each and at the end

    Returns
    -------
    Scan -> why it could not be judged.
    """
    _forget_removed(out_dir)
    jobs, problems = unjudged(out_dir), {}
    for number, job in enumerate(jobs):
        if progress:
            progress(number, len(jobs))
        try:
            judge_scan(out_dir, job, run_id=run_id)
        except Exception as error:  # whatever a scan's files make it raise must not cost the others their report
            problems[job.relative] = f"{type(error).__name__}: {error}"
    if progress and jobs:
        progress(len(jobs), len(jobs))
    return problems


def prepare_judge(out_dir: Path, bids_dir: Path, *, overwrite: bool = False) -> None:
    """Make the root of the judge's data set.

    Raises
    ------
    OutputExistsError
        The folder holds something that this package did not write.
    """
    bids.prepare_dataset(
        out_dir / bids.JUDGE,
        bids_dir,
        "consensus tissue",
        f"corrections compared on tissue that no method made (version {JUDGE_VERSION} of the judge)",
        overwrite=overwrite,
        action="Comparison of corrections",
        readme=bids.JUDGE_README,
    )


# --- what has been delivered


def _delivered(out_dir: Path, job: Job) -> Iterator[Delivered]:
    for dataset in sorted(path for path in out_dir.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            one = _delivered_to(dataset, job)
        except UNREADABLE:
            continue  # not of this method, or damaged: the next run makes it again
        if is_complete(CORRECTED.record_file(job, dataset), dataset, one.key):
            yield one


def _delivered_to(dataset: Path, job: Job) -> Delivered:
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


def _scans(out_dir: Path) -> dict[str, Job]:
    """The scans that any method has delivered, by their path in the data set that they are of."""
    jobs = {}
    for path in out_dir.glob(RECORDS):
        try:
            job = _job_of(path)
            jobs[job.relative] = job
        except UNREADABLE:
            continue
    return jobs


def _job_of(record_file: Path) -> Job:
    """The scan that a record is of; raises one of UNREADABLE."""
    record = json.loads(record_file.read_text())
    relative = record["source"].split(":", 2)[2]
    entities = tuple((str(key), str(value)) for key, value in record["entities"].items())
    return Job(Path(relative), relative, entities, record["suffix"])


def _is_judged(out_dir: Path, job: Job) -> bool:
    case = Case.of(out_dir, job)
    return not case.present or is_complete(
        JUDGED.record_file(job, out_dir / bids.JUDGE), out_dir / bids.JUDGE, case.key
    )


def _raw_of(dataset: Path) -> Path:
    """The data set that a derivative data set says it was made of; itself where it does not say."""
    try:
        link = json.loads((dataset / bids.DATASET_DESCRIPTION).read_text())["DatasetLinks"]["raw"]
    except UNREADABLE:
        return dataset
    return dataset / str(link)


# --- judging


class _Images(Mapping[str, np.ndarray]):
    """Images that are read as they are asked for, so that one at a time is in memory."""

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]):
        self._readers = readers

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _judge(case: Case, job: Job, images: Mapping[str, np.ndarray]) -> tuple[Judgement, np.ndarray]:
    """The judgement, and the images' affine."""
    first = _load(case.compared[0].paths["corrected"])
    masks = [one.paths["mask"] for one in case.compared if one.paths["mask"].is_file()]
    if not masks:
        return Judgement(NO_MASK), first.affine
    mask = np.all([_read(path) > 0 for path in masks], axis=0)
    return judge_images(images, mask, nifti.voxel_size_mm(first), suffix=job.suffix), first.affine


def _images(out_dir: Path, case: Case, job: Job) -> _Images:
    """What is compared; without the acquired image where nobody has it any more."""
    acquired = _acquired(out_dir, case, job)
    readers = {ACQUIRED: acquired} if acquired else {}
    readers |= {one.label: partial(_read, one.paths["corrected"]) for one in case.compared if not one.unapplied}
    return _Images(readers)


def _acquired(out_dir: Path, case: Case, job: Job) -> Callable[[], np.ndarray] | None:
    """How the acquired image is read: a corrected one times its field, wherever the source has gone; else the source.

    Not every corrected image will do: some methods rescale intensities after the division.
    """
    exact = next((one for one in case.compared if one.exact), None)
    if exact:
        return partial(_times_field, exact)
    last = case.compared[0]
    source = _raw_of(out_dir / last.label) / job.relative
    try:
        same = sha256(source) == last.source_sha256
    except OSError:
        return None
    return partial(_source, source) if same else None


def _times_field(one: Delivered) -> np.ndarray:
    return _read(one.paths["corrected"]) * _read(one.paths["bias"])


def _source(path: Path) -> np.ndarray:
    data = _read(path)
    return np.where(np.isfinite(data), data, np.float32(0))  # as the division leaves it


def _load(path: Path) -> nib.Nifti1Image:
    """An image in RAS+ order, so that a judgement does not depend on how images are stored."""
    return nib.as_closest_canonical(nifti.load(path))


def _read(path: Path) -> np.ndarray:
    img = _load(path)
    return np.asarray(img.dataobj, np.float32).reshape(img.shape[:3])


def _record(case: Case, job: Job, judgement: Judgement) -> dict[str, Any]:
    return {
        "source": bids.bids_uri(job),
        "subject": job.entity("sub"),
        "session": job.entity("ses"),
        "entities": dict(job.entities),
        "suffix": job.suffix,
        "judge_version": JUDGE_VERSION,
        "delivered": case.delivered,
        "judged": case.judged,
        "left_out": dict(case.left_out),
        "not_compared": dict(case.not_compared),
        **judgement.as_dict(),
    }


# --- what no method delivers any more


def _forget(job: Job, out_dir: Path) -> None:
    """Remove what the judge has of a scan, the record first."""
    paths = JUDGED.paths(job, out_dir / bids.JUDGE)
    paths.pop(JUDGED.record).unlink(missing_ok=True)
    for path in paths.values():
        path.unlink(missing_ok=True)
        bids.sidecar(path).unlink(missing_ok=True)


def _forget_removed(out_dir: Path) -> None:
    for path in (out_dir / bids.JUDGE).glob("sub-*/**/*_judge.json"):
        try:
            job = _job_of(path)
        except UNREADABLE:
            path.unlink(missing_ok=True)  # damaged: made again where there is something to judge
            continue
        if not any(True for _ in _delivered(out_dir, job)):
            _forget(job, out_dir)
