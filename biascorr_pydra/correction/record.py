"""The record of a correction: what was done to one image, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra import __version__

__all__ = ["CorrectedImage", "Correction", "software_versions", "summarize"]

SOFTWARE = ("antspyx", "nibabel", "numpy", "torch")


@dataclass(frozen=True)
class Correction:
    """What was done to one image, and what was found: JSON-serialisable by :meth:`as_dict`.

    Attributes
    ----------
    method, method_version, preset, parameters, weights_sha256, device, seed
        How the field was estimated.
    in_file, in_sha256, mask_file, mask_sha256, weight_file, weight_sha256
        On what.
    mask_resampled : bool
        The mask came on another grid and was resampled to the image's.
    scaled_over : str
        Over which voxels the field has mean 1: "given mask" or "detected head".
    n_mask_voxels : int
    voxel_size_mm : three floats
    intensities : dict
        Counts of NaN, infinite, negative and zero voxels.
    field : dict
        Minimum, maximum, and 5th and 95th percentile, over those voxels, of the field that was divided out.
    estimate : dict
        The method's own record, such as iterations and convergence.
    gate : dict
        Whether the field was judged ("judged"), the "verdict" with its "reasons" and "checks", whose field was divided
        out in the end ("applied": a method, or "none"), the "fallback" that was named and the verdict on its field, and
        signs that the image was "already_corrected".
    warnings : tuple of str
    runtime_s : dict
        Seconds per step.
    software : dict
        Versions.
    """

    method: str
    method_version: str
    preset: str | None
    parameters: Mapping[str, Any]
    weights_sha256: str | None
    device: str
    seed: int
    in_file: str | None
    in_sha256: str | None
    mask_file: str | None
    mask_sha256: str | None
    weight_file: str | None
    weight_sha256: str | None
    mask_resampled: bool
    scaled_over: str
    n_mask_voxels: int
    voxel_size_mm: tuple[float, float, float]
    intensities: Mapping[str, int]
    field: Mapping[str, float]
    estimate: Mapping[str, Any]
    gate: Mapping[str, Any]
    warnings: tuple[str, ...]
    runtime_s: Mapping[str, float]
    software: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class CorrectedImage:
    """A corrected image, its bias field (both float32, on the input's grid), and the record of the correction.

    ``uncertainty``, if it was asked for, is the standard deviation of the log field over the image and its three mirror
    images (:func:`biascorr_pydra.correction.estimate.disagreement_of_flips`).
    """

    corrected: nib.Nifti1Image
    bias: nib.Nifti1Image
    correction: Correction
    uncertainty: nib.Nifti1Image | None = None


def summarize(inside: np.ndarray) -> dict[str, float]:
    """Minimum, 5th and 95th percentile and maximum of a field's values inside a mask."""
    low, high = np.percentile(inside, [5, 95])
    return {
        "min": float(inside.min()),
        "p05": float(low),
        "p95": float(high),
        "max": float(inside.max()),
    }


def software_versions() -> dict[str, str]:
    """Versions of this package and of those that the numbers depend on."""
    found = {"biascorr_pydra": __version__}
    for name in SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
