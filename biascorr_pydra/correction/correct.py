"""Correct one image, in memory or on disk: the function behind every face of the package.

acquired = true x bias (+ noise). A corrector estimates the log bias, usually at low resolution; it is evaluated on the
native grid, scaled to mean 1 over the mask, judged (:mod:`biascorr_pydra.correction.decide`), and divided out
(:mod:`biascorr_pydra.correction.divide`). The corrected image is never a resampled image.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra.bids.signs import metadata_beside
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images import files, nifti

from .case import Case, ImageOrFile, make_case
from .decide import Decision, decide
from .divide import divide
from .options import DEFAULTS, CorrectionOptions
from .record import CorrectedImage, Correction, record_of

__all__ = ["correct_file", "correct_image"]


def correct_image(
    img: nib.Nifti1Image,
    *,
    method: str = DEFAULTS.method,
    mask: ImageOrFile | None = None,
    weight: ImageOrFile | None = None,
    device: str = DEFAULTS.device,
    seed: int = DEFAULTS.seed,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    average_frames: bool = DEFAULTS.average_frames,
    gate: bool = DEFAULTS.gate,
    fallback: str = DEFAULTS.fallback,
    check_response: bool = DEFAULTS.check_response,
    uncertainty: bool = DEFAULTS.uncertainty,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[..., None] | None = None,
) -> CorrectedImage:
    """Estimate and remove the bias field of one image in memory.

    Parameters
    ----------
    img : NIfTI image, 3-D, or 4-D with ``average_frames``
    mask, weight : image or file, optional
        Where to estimate the field (voxels above 0, resampled from another grid over the same place), and how much each
        voxel counts (0 or more, on the image's grid; for methods that take it).
    progress : callable, optional
        For methods that report it; see :meth:`biascorr_pydra.methods.n4.corrector.N4.estimate_batch`.
    method, device, seed, preset, options, average_frames, gate, fallback, check_response, uncertainty, metadata
        See :class:`biascorr_pydra.correction.options.CorrectionOptions`.

    Raises
    ------
    BiasCorrError
        One of its leaves, naming the rule, the file, the value and the next step.
    """
    chosen = CorrectionOptions(
        method=method,
        preset=preset,
        options=options,
        device=device,
        seed=seed,
        average_frames=average_frames,
        gate=gate,
        fallback=fallback,
        check_response=check_response,
        uncertainty=uncertainty,
        metadata=metadata,
    )
    return _correct(img, chosen, mask=mask, weight=weight, progress=progress)


def _correct(
    img: nib.Nifti1Image,
    options: CorrectionOptions,
    *,
    mask: ImageOrFile | None = None,
    weight: ImageOrFile | None = None,
    progress: Callable[..., None] | None = None,
) -> CorrectedImage:
    """The steps: look at the image, settle its field, divide, record."""
    started = time.perf_counter()
    case = make_case(img, options, mask=mask, weight=weight)
    inspected = time.perf_counter()
    decision = decide(case, options, progress=progress)
    applying = time.perf_counter()
    corrected, warnings = _divided(case, decision)
    applied = time.perf_counter()
    seconds = {"inspect": inspected - started, **decision.seconds, "apply": applied - applying}
    record = record_of(case, options, decision, warnings=warnings, runtime_s=seconds)
    shape = img.shape if case.frames is None else img.shape[:3]
    uncertainty = decision.uncertainty
    return CorrectedImage(
        nifti.save_like(corrected.reshape(img.shape), img),
        nifti.save_like(decision.bias.reshape(shape), img),
        record,
        None if uncertainty is None else nifti.save_like(uncertainty.reshape(shape), img),
    )


def _divided(case: Case, decision: Decision) -> tuple[np.ndarray, tuple[str, ...]]:
    """The image, or every frame of the series, divided by the field that was decided on; and what to say of it."""
    corrected = divide(case.acquired, decision.bias)
    if decision.corrector is None:
        return corrected, ()
    if case.frames is None:
        return decision.corrector.finish(corrected, case.scan.mask, decision.applied), ()
    n_frames = case.frames.shape[3]
    return corrected, (f"One field, estimated on the mean of {n_frames} frames, was divided out of each.",)


def correct_file(
    in_file: str | Path,
    out_file: str | Path,
    *,
    method: str = DEFAULTS.method,
    mask_file: str | Path | None = None,
    weight_file: str | Path | None = None,
    bias_file: str | Path | None = None,
    record_file: str | Path | None = None,
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
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[..., None] | None = None,
) -> Correction:
    """Correct one NIfTI file.

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
    uncertainty_file : optional
        Also write how far the fields of the mirror images are apart, as a standard deviation of the log field
        (:func:`biascorr_pydra.correction.estimate.disagreement_of_flips`), and judge by it; three estimates more.
    metadata : mapping, optional
        What the image's BIDS sidecar says; by default the JSON file beside ``in_file``, if there is one.
    overwrite : bool
        Replace outputs that exist.
    method, device, seed, preset, options, average_frames, gate, fallback, check_response, progress
        See :class:`biascorr_pydra.correction.options.CorrectionOptions` and :func:`correct_image`.

    Raises
    ------
    BiasCorrError
        Before any output is written; what existed is untouched.
    """
    started = time.perf_counter()
    _check_outputs((out_file, bias_file, uncertainty_file), record_file, (in_file, mask_file, weight_file), overwrite)
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
    encoding = time.perf_counter()
    images = ((out_file, result.corrected), (bias_file, result.bias), (uncertainty_file, result.uncertainty))
    contents = {file: nifti.encode(image, file) for file, image in images if file is not None and image is not None}
    encode_s = time.perf_counter() - encoding
    record = result.correction.as_dict() | {"in_sha256": files.sha256(in_file)}
    record["warnings"] = (*record["warnings"], *unreadable)
    record["runtime_s"] = {"read": round(read_s, 4), **record["runtime_s"], "encode": round(encode_s, 4)}
    if record_file is not None:
        contents[record_file] = json.dumps(record, indent=2).encode()
    files.write_all(contents)
    return Correction(**record)


def _check_outputs(
    images: tuple[str | Path | None, ...],
    record_file: str | Path | None,
    inputs: tuple[str | Path | None, ...],
    overwrite: bool,
) -> None:
    outputs = [file for file in (*images, record_file) if file is not None]
    if len({Path(file).resolve() for file in outputs}) < len(outputs):
        raise InvalidParameterError("every output needs a name of its own", value=", ".join(map(str, outputs)))
    for file in images:
        if file is not None:
            files.check_output(file, inputs=inputs, overwrite=overwrite)
    if record_file is not None:
        files.check_output(record_file, inputs=inputs, overwrite=overwrite, suffixes=(".json",))
