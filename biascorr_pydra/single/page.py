"""The page of one correction: its image is masked, segmented and measured for it, as a cohort's scans are.

All of it comes after the correction, which is the same with and without a page, and is not lost if that cannot be made.
"""

from __future__ import annotations

import html
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib

from biascorr_pydra.anatomy.brain import extract_file
from biascorr_pydra.anatomy.tissue import reason_against, segment_file
from biascorr_pydra.bids import CORRECTED, NOT_CORRECTED, Job
from biascorr_pydra.bids.entities import parse
from biascorr_pydra.cohort.publish import metrics_record
from biascorr_pydra.correction.record import CorrectedImage
from biascorr_pydra.correction.series import frames_of, mean_frame
from biascorr_pydra.errors import BiasCorrError
from biascorr_pydra.quality import REJECTED, measure_file
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.judge_records import joined
from biascorr_pydra.report.judged import JudgedScan
from biascorr_pydra.report.scan import page_of_one

from .contrasts import KNOWN
from .judging import judge_one

__all__ = ["page_of", "page_or_why_not"]

SEGMENTATION = "atropos"  # as cohorts are segmented where nothing else is chosen
NO_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name}: no page</title></head>
<body><h1>{name}</h1>
<p>The image was corrected. {reason}</p></body></html>
"""


def page_or_why_not(
    img: nib.Nifti1Image,
    result: CorrectedImage,
    record: Mapping[str, Any],
    *,
    mask_file: str | Path | None,
    suffix: str | None,
    device: str,
) -> tuple[bytes, list[str]]:
    """See :func:`page_of`; if that fails, a page that says why, and the same as a warning.

    Returns
    -------
    The file's bytes, and warnings for the correction's record.
    """
    name = Path(str(img.get_filename() or "image")).name  # before it is saved under another one
    try:
        return page_of(img, result, record, mask_file=mask_file, suffix=suffix, device=device), []
    except Exception as error:  # the correction is done: whatever a page makes of it must not lose it
        reason = f"The page that shows the correction cannot be made: {_in_words(error)}."
        page = NO_PAGE.format(name=html.escape(name), reason=html.escape(reason))
        return page.encode("utf-8", "backslashreplace"), [reason]


def page_of(
    img: nib.Nifti1Image,
    result: CorrectedImage,
    record: Mapping[str, Any],
    *,
    mask_file: str | Path | None,
    suffix: str | None,
    device: str,
) -> bytes:
    """The page as the bytes of an HTML file that needs no other.

    Parameters
    ----------
    img : the acquired image or series
    result : its correction; of a series the mean frames are shown
    record : of the correction, as it is written
    mask_file : the mask that the correction was given, or None: then a brain mask is made for the page
    suffix : BIDS suffix; by default what the file's name ends with
    device : where a brain mask is made
    """
    name = Path(str(img.get_filename() or "image.nii.gz"))
    entities, end = parse(name.name)
    job = Job(name, name.name, entities, suffix or end)
    with tempfile.TemporaryDirectory(prefix="biascorr-page-") as folder:
        examined = _examined(job, _shown(img, result, Path(folder)), record, mask_file, device)
        return page_of_one(examined).encode("utf-8", "backslashreplace")


def _shown(img: nib.Nifti1Image, result: CorrectedImage, folder: Path) -> dict[str, Path]:
    """The images that the page is made of, as files in a folder, by kind."""
    made = {"acquired": _frame(img), "corrected": _frame(result.corrected), "bias": result.bias}
    if result.rejected is not None:
        made["rejected"] = result.rejected
    paths = {kind: folder / f"{kind}.nii" for kind in made}
    for kind, image in made.items():
        nib.save(image, paths[kind])
    return paths


def _frame(img: nib.Nifti1Image) -> nib.Nifti1Image:
    frames = frames_of(img)
    return img if frames is None else mean_frame(frames, img)


def _examined(
    job: Job, files: dict[str, Path], record: Mapping[str, Any], mask_file: str | Path | None, device: str
) -> Result:
    """The correction as a scan of a cohort has it: masked, segmented, measured."""
    folder = files["acquired"].parent
    records: dict[str, Any] = {"correction": record}
    notes = _add_brain(job, files, records, mask_file, device)
    reason = _add_tissue(job, files, records, device)
    metrics_file = measure_file(
        files["acquired"],
        files["corrected"],
        files["bias"],
        folder,
        mask_file=files.get("mask"),
        dseg_file=files.get("dseg"),
        no_dseg_reason=reason,
    )
    records["metrics"] = json.loads(metrics_file.read_text())
    measured = metrics_record(job, records)
    measured["warnings"] += notes
    judged = _judged(job, files, record)
    if mask_file is None:  # the correction had no mask: what the page is made with is none of its business
        measured["skull_strip"] = None
        records.pop("brain", None)
    result = Result(
        scan=job.relative,
        method=record["method"],
        state="rejected" if record["gate"]["verdict"] == REJECTED else "done",
        record=measured,
        sidecar=CORRECTED.sidecars(job, records)["corrected"],
        files=files,
        root=folder,
        judged=judged,
    )
    result.record = joined(result, judged)
    return result


def _add_brain(
    job: Job, files: dict[str, Path], records: dict[str, Any], mask_file: str | Path | None, device: str
) -> list[str]:
    """Add the mask and its record, if there is a brain; what there is to say of it."""
    if mask_file is None and job.suffix not in KNOWN:  # it may be no head at all
        return [f"No brain was looked for, because {_unknown(job)}. The detected head stands for it on this page."]
    method = "auto" if mask_file is None else "given"
    try:
        made = extract_file(
            files["acquired"],
            files["acquired"].parent,
            method=method,
            suffix=job.suffix,
            mask_file=mask_file,
            device=device,
        )
    except BiasCorrError as error:
        return [f"There is no brain mask: {_in_words(error)}. The detected head stands for it on this page."]
    files["mask"] = made.mask_file
    records["brain"] = json.loads(made.record_file.read_text())
    if method == "given":
        return []
    by = records["brain"]["Name"]
    return [f"The correction was made without a mask; the brain mask on this page was made for the page, by {by}."]


def _add_tissue(job: Job, files: dict[str, Path], records: dict[str, Any], device: str) -> str:
    """Add the segmentation and its record; else why there is none."""
    reason = reason_against(job.suffix, SEGMENTATION, masked="mask" in files)
    if reason:
        return reason if job.suffix in KNOWN else _unknown(job)
    try:
        made = segment_file(
            files["corrected"],
            files["corrected"].parent,
            mask_file=files["mask"],
            method=SEGMENTATION,
            suffix=job.suffix,
            device=device,
        )
    except BiasCorrError as error:
        return f"the segmentation failed: {_in_words(error)}"
    files["dseg"] = made.dseg_file
    left = records["correction"]["gate"]["applied"] == NOT_CORRECTED
    image = "the image itself, which was left as it is" if left else "the scan as it was corrected"
    records["tissue"] = {**json.loads(made.record_file.read_text()), "Image": image}
    return ""


def _judged(job: Job, files: Mapping[str, Path], record: Mapping[str, Any]) -> JudgedScan:
    """What the judge says; a judge that fails costs only its part of the page."""
    try:
        return judge_one(files, record["method"], record["gate"], suffix=job.suffix)
    except Exception as error:  # whatever an odd image makes it raise
        return JudgedScan(f"the judge failed: {_in_words(error)}")


def _unknown(job: Job) -> str:
    return f"the file's name does not say the contrast ({job.suffix!r} is none); --suffix T1w, for instance, would"


def _in_words(error: Exception) -> str:
    """An error without the path of a file that is gone when the page is read."""
    if isinstance(error, BiasCorrError):
        return f"{error.rule} ({error.value})" if error.value is not None else error.rule
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
