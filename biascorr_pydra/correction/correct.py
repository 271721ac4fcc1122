"""Correct one image in memory; :mod:`biascorr_pydra.single` does so between files, for every face of the package.

acquired = true x bias (+ noise). A corrector estimates the log bias, usually at low resolution; it is evaluated on the
native grid, scaled to mean 1 over the mask, judged (:mod:`biascorr_pydra.correction.decide`), and divided out
(:mod:`biascorr_pydra.correction.divide`). The corrected image is never a resampled image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra.images import nifti

from .case import Case, ImageOrFile, make_case
from .decide import Decision, decide
from .divide import divide
from .options import DEFAULTS, CorrectionOptions
from .record import CorrectedImage, record_of

__all__ = ["correct_image"]


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
    strict: bool = DEFAULTS.strict,
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
    method, device, seed, preset, options, average_frames, gate, fallback, check_response, uncertainty, strict, metadata
        See :class:`biascorr_pydra.correction.options.CorrectionOptions`.

    Raises
    ------
    BiasCorrError
        One of its leaves, naming the rule, the file, the value and the next step; RejectedFieldError with ``strict``.
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
        strict=strict,
        metadata=metadata,
    )
    result = _correct(img, chosen, mask=mask, weight=weight, progress=progress)
    if strict:
        result.correction.require_applied()
    return result


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

    def on_grid(values: np.ndarray | None) -> nib.Nifti1Image | None:
        return None if values is None else nifti.save_like(values.reshape(shape), img)

    return CorrectedImage(
        nifti.save_like(corrected.reshape(img.shape), img),
        nifti.save_like(decision.bias.reshape(shape), img),
        record,
        uncertainty=on_grid(decision.uncertainty),
        rejected=on_grid(decision.rejected),
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
