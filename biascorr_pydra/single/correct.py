"""Correct one NIfTI file: the function behind every face of the package."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from biascorr_pydra.bids.signs import metadata_beside
from biascorr_pydra.correction.correct import correct_image
from biascorr_pydra.correction.options import DEFAULTS
from biascorr_pydra.correction.record import CorrectedImage, Correction
from biascorr_pydra.images import files, nifti

from .contrasts import check_suffix
from .outputs import Outputs, rejected_file_beside

__all__ = ["correct_file", "rejected_file_beside"]


def correct_file(
    in_file: str | Path,
    out_file: str | Path,
    *,
    method: str = DEFAULTS.method,
    mask_file: str | Path | None = None,
    weight_file: str | Path | None = None,
    bias_file: str | Path | None = None,
    record_file: str | Path | None = None,
    rejected_file: str | Path | None = None,
    report_file: str | Path | None = None,
    suffix: str | None = None,
    device: str = DEFAULTS.device,
    seed: int = DEFAULTS.seed,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    average_frames: bool = DEFAULTS.average_frames,
    gate: bool = DEFAULTS.gate,
    fallback: str = DEFAULTS.fallback,
    check_response: bool = DEFAULTS.check_response,
    uncertainty_file: str | Path | None = None,
    strict: bool = DEFAULTS.strict,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[..., None] | None = None,
) -> Correction:
    """Correct one NIfTI file.

    All files of a call are written, or none.

    Parameters
    ----------
    in_file, out_file : .nii or .nii.gz
        The output is float32 with the input's affine, qform, sform, their codes, units and description.
    mask_file : optional
        Where to estimate the field.
    weight_file : optional
        How much each voxel counts.
    bias_file : optional
        Also write the bias field (dimensionless, mean 1 over the mask or the detected head).
    record_file : optional
        Also write the :class:`Correction` as JSON.
    rejected_file : optional
        Where the field goes that was rejected or negligible, and so not divided out, if there is one; by default beside
        ``out_file``, see :func:`rejected_file_beside`.
    report_file : .html, optional
        Also write a page that shows the correction: images, field, mask, tissues, metrics. It takes a brain mask (the
        given one, or one made for the page alone) and a segmentation of the corrected image more; the correction does
        not depend on it: of a page that cannot be made the file says why, and so does a warning in the record.
    suffix : str, optional
        The contrast as BIDS names it (T1w, T2w, FLAIR ...), for the page; by default the end of the file's name.
    uncertainty_file : optional
        Also write how far the fields of the mirror images are apart, as a standard deviation of the log field
        (:func:`biascorr_pydra.correction.estimate.disagreement_of_flips`), and judge by it; three estimates more.
    metadata : mapping, optional
        What the image's BIDS sidecar says; by default the JSON file beside ``in_file``, if there is one.
    overwrite : bool
        Replace outputs that exist; a rejected field that an earlier call left beside ``out_file`` goes if there is none
        now.
    method, device, seed, preset, options, average_frames, gate, fallback, check_response, strict, progress
        See :class:`biascorr_pydra.correction.options.CorrectionOptions` and
        :func:`biascorr_pydra.correction.correct.correct_image`.

    Raises
    ------
    BiasCorrError
        Before any output is written; what existed is untouched.
    RejectedFieldError
        With ``strict``, and after all is written: the image was left as it is.
    """
    started = time.perf_counter()
    images = {"out": out_file, "bias": bias_file, "rejected": rejected_file, "uncertainty": uncertainty_file}
    outputs = Outputs(images, record_file, report_file)
    outputs.check((in_file, mask_file, weight_file), overwrite=overwrite)
    check_suffix(suffix)
    img = nifti.load(in_file)
    metadata, unreadable = metadata_beside(in_file) if metadata is None else (metadata, [])
    read_s = time.perf_counter() - started
    result = correct_image(
        img,
        method=method,
        mask=mask_file,
        weight=weight_file,
        device=device,
        seed=seed,
        preset=preset,
        options=options,
        average_frames=average_frames,
        gate=gate,
        fallback=fallback,
        check_response=check_response,
        uncertainty=uncertainty_file is not None,
        metadata=metadata,
        progress=progress,
    )
    contents, encode_s = _encoded(result, outputs)
    record = result.correction.as_dict() | {"in_sha256": files.sha256(in_file)}
    record["warnings"] = (*record["warnings"], *unreadable)
    record["runtime_s"] = {"read": round(read_s, 4), **record["runtime_s"], "encode": round(encode_s, 4)}
    if report_file is not None:
        from .page import page_or_why_not  # draws: slow to import

        page = page_or_why_not(img, result, record, mask_file=mask_file, suffix=suffix, device=device)
        contents[report_file] = page[0]
        record["warnings"] = (*record["warnings"], *page[1])
    if record_file is not None:
        contents[record_file] = json.dumps(record, indent=2).encode()
    outputs.write(contents)
    correction = Correction(**record)
    if strict:
        correction.require_applied()
    return correction


def _encoded(result: CorrectedImage, outputs: Outputs) -> tuple[dict[str | Path, bytes], float]:
    """The images as files' contents, and the seconds that it took."""
    started = time.perf_counter()
    made = {
        "out": result.corrected,
        "bias": result.bias,
        "rejected": result.rejected,
        "uncertainty": result.uncertainty,
    }
    contents: dict[str | Path, bytes] = {
        file: nifti.encode(image, file)
        for kind, image in made.items()
        if image is not None and (file := outputs.images[kind]) is not None
    }
    return contents, time.perf_counter() - started
