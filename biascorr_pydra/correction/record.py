"""The record of a correction: what was done to one image, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra import __version__
from biascorr_pydra.bids import NOT_CORRECTED
from biascorr_pydra.errors import RejectedFieldError
from biascorr_pydra.images import files, nifti
from biascorr_pydra.methods.identity import weights_sha256

from .case import Case
from .decide import Decision
from .options import CorrectionOptions

__all__ = ["CorrectedImage", "Correction", "record_of", "software_versions"]

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
    rejected_field : dict or None
        The same of the field that was rejected or negligible, if there is one.
    estimate : dict
        The method's own record, such as iterations and convergence.
    gate : dict
        Whether the field was judged ("judged"), the "verdict" with its "reasons" and "checks", whose field was divided
        out in the end ("applied": a method, or "none"), the "fallback" that was named and the verdict on its field,
        "next_steps" where none was divided out, and signs that the image was "already_corrected".
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
    rejected_field: Mapping[str, float] | None
    estimate: Mapping[str, Any]
    gate: Mapping[str, Any]
    warnings: tuple[str, ...]
    runtime_s: Mapping[str, float]
    software: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def require_applied(self) -> None:
        """Do nothing where a field was divided out, by the method or by its fallback.

        Raises
        ------
        RejectedFieldError
            The image was left as it is: the field was rejected or negligible.
        """
        if self.gate["applied"] == NOT_CORRECTED:
            raise RejectedFieldError(
                f"the image was left as it is, because the field by {self.method} is {self.gate['verdict']}",
                file=self.in_file,
                value="; ".join(self.gate["reasons"]),
                next_step=" ".join(self.gate["next_steps"]),
            )


@dataclass(frozen=True)
class CorrectedImage:
    """A corrected image, its bias field (both float32, on the input's grid), and the record of the correction.

    ``rejected`` is the field that was rejected or negligible, and therefore not divided out, if there is one.
    ``uncertainty``, if it was asked for, is the standard deviation of the log field over the image and its three mirror
    images (:func:`biascorr_pydra.correction.estimate.disagreement_of_flips`).
    """

    corrected: nib.Nifti1Image
    bias: nib.Nifti1Image
    correction: Correction
    uncertainty: nib.Nifti1Image | None = None
    rejected: nib.Nifti1Image | None = None


def record_of(
    case: Case,
    options: CorrectionOptions,
    decision: Decision,
    *,
    warnings: tuple[str, ...] = (),
    runtime_s: Mapping[str, float],
) -> Correction:
    """The record of a correction in memory; what a file's adds to it is known to whoever read the file.

    Parameters
    ----------
    warnings : sentences beside those of the case and the decision
    runtime_s : seconds by step
    """
    corrector = case.corrector
    return Correction(
        method=corrector.name,
        method_version=corrector.version,
        preset=options.preset or next(iter(corrector.presets)),
        parameters=corrector.parameters(),
        weights_sha256=weights_sha256(corrector),
        device=case.device if corrector.uses_device else "cpu",
        seed=options.seed,
        in_file=case.img.get_filename() and str(case.img.get_filename()),
        in_sha256=None,
        mask_file=case.mask_file,
        mask_sha256=case.mask_file and files.sha256(case.mask_file),
        weight_file=case.weight_file,
        weight_sha256=case.weight_file and files.sha256(case.weight_file),
        mask_resampled=case.mask_resampled,
        scaled_over="detected head" if case.scan.mask is None else "given mask",
        n_mask_voxels=int(case.scale_mask.sum()),
        voxel_size_mm=nifti.voxel_size_mm(case.img),
        intensities=case.intensities.as_dict(),
        field=_summary(decision.bias[case.scale_mask]),
        rejected_field=None if decision.rejected is None else _summary(decision.rejected[case.scale_mask]),
        estimate=decision.estimate,
        gate=decision.gate,
        warnings=(*case.warnings, *decision.warnings, *warnings),
        runtime_s={step: round(seconds, 4) for step, seconds in runtime_s.items()},
        software=software_versions(),
    )


def _summary(inside: np.ndarray) -> dict[str, float]:
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
    versions = {"biascorr_pydra": __version__}
    for name in SOFTWARE:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
