"""What the judge says of one corrected image against the acquired one, as a cohort's report has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra.bids import NOT_CORRECTED
from biascorr_pydra.images import nifti
from biascorr_pydra.judge import ACQUIRED, judge_images
from biascorr_pydra.report.judged import JudgedScan

__all__ = ["judge_one"]


def judge_one(files: Mapping[str, Path], method: str, gate: Mapping[str, Any], *, suffix: str) -> JudgedScan:
    """Judge an image against what was acquired; the judge's tissue is written beside the files.

    Parameters
    ----------
    files : "acquired", "corrected" and, without which nothing is judged, "mask"
    method : under which name the corrected image is known
    gate : of the correction's record; an image that was left as it is is not compared with itself
    suffix : BIDS suffix
    """
    if "mask" not in files:
        return JudgedScan("there is no brain mask")
    affine, corrected = _read(files["corrected"])
    # Not corrected x bias: a method may rescale what it has divided. Where it is undefined, a correction delivers 0.
    images = {ACQUIRED: np.nan_to_num(_read(files["acquired"])[1], nan=0, posinf=0, neginf=0)}
    left_out = {}
    if gate["applied"] == NOT_CORRECTED:
        left_out[method] = f"{gate['verdict']} by the gate: delivered as acquired"
    else:
        images[method] = corrected
    size = nifti.voxel_size_mm(nib.Nifti1Image(corrected, affine))
    judgement = judge_images(images, _read(files["mask"])[1] > 0, size, suffix=suffix)
    dseg_file = None
    if (tissue := judgement.tissue_image(affine)) is not None:
        dseg_file = files["corrected"].with_name("judge.nii.gz")
        nifti.save(tissue, dseg_file)
    return JudgedScan(judgement.reason, judgement.as_dict() | {"left_out": left_out}, dseg_file)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Affine and values in RAS+ order, so that a judgement does not depend on how images are stored."""
    img = nib.as_closest_canonical(nifti.load(file))
    return img.affine, np.asarray(img.dataobj, np.float32).reshape(img.shape[:3])
