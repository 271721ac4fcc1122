"""Judge the scans of an output folder from their published files, whoever published them and when.

A scan's record in OUT/judge says which work of which methods it was made of. Where that differs from what lies in the
methods' data sets, or another version of the judge made it, it is made anew; so nothing has to be known of the run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra import bids
from biascorr_pydra.bids import JUDGED, Job
from biascorr_pydra.images import nifti
from biascorr_pydra.images.files import check_writable, remove, sha256
from biascorr_pydra.judge import ACQUIRED, JUDGE_VERSION, Judgement, judge_images

from .delivered import UNREADABLE, Case, Delivered, delivered, job_of, raw_of, scans
from .plan import is_complete, key_of
from .publish import publish

__all__ = ["judge_rest", "judge_scan", "prepare_judge", "unjudged"]

NO_MASK = "there is no brain mask: the corrections were made without skull stripping"
NO_ACQUIRED = (
    "the acquired image cannot be had from the corrected ones, whose intensities were rescaled or may have been, "
    "and it is no longer where it was"
)


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
    if is_complete(record, out_dir / bids.JUDGE, _key_of(case)):
        return record
    if not bids.is_ours(out_dir / bids.JUDGE):
        # A folder that is not there is nobody's, whatever lies beside it, such as a report whose status table is lost.
        absent = not (out_dir / bids.JUDGE).exists()
        prepare_judge(out_dir, raw_of(out_dir / case.present[0].label), overwrite=absent)
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
        return publish(job, JUDGED, out_dir / bids.JUDGE, files, about, content, key=_key_of(case), run_id=run_id)


def unjudged(out_dir: Path) -> list[Job]:
    """Scans whose record is not there, or not of what their methods have delivered; reads every record there is."""
    jobs = scans(out_dir)
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

    Raises
    ------
    OutputError
        The judge's folder cannot be written to.
    """
    _forget_removed(out_dir)
    jobs, problems = unjudged(out_dir), {}
    if jobs:
        check_writable(next(folder for folder in (out_dir / bids.JUDGE, out_dir) if folder.is_dir()))
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


def _is_judged(out_dir: Path, job: Job) -> bool:
    case = Case.of(out_dir, job)
    return not case.present or is_complete(
        JUDGED.record_file(job, out_dir / bids.JUDGE), out_dir / bids.JUDGE, _key_of(case)
    )


def _key_of(case: Case) -> str:
    """What the judgement of these images is called: another one where anything that it is made of differs."""
    return key_of({"version": JUDGE_VERSION, "delivered": case.delivered, "aside": [*case.not_compared]})


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
    source = raw_of(out_dir / last.label) / job.relative
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
    """Remove what the judge has of a scan, the record first; nothing in a folder of somebody else's."""
    if not bids.is_ours(out_dir / bids.JUDGE):
        return
    paths = JUDGED.paths(job, out_dir / bids.JUDGE)
    remove(paths.pop(JUDGED.record))
    for path in paths.values():
        remove(path)
        remove(bids.sidecar(path))


def _forget_removed(out_dir: Path) -> None:
    if not bids.is_ours(out_dir / bids.JUDGE):
        return
    for path in (out_dir / bids.JUDGE).glob("sub-*/**/*_judge.json"):
        try:
            job = job_of(path)
        except UNREADABLE:
            remove(path)  # damaged: made again where there is something to judge
            continue
        if not any(True for _ in delivered(out_dir, job)):
            _forget(job, out_dir)
