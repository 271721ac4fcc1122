"""A segmentation made elsewhere, brought onto an image's grid; see the module `tissue`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to

from biascorr_pydra.errors import GridMismatchError, InvalidParameterError, SegmentationError
from biascorr_pydra.images import nifti
from biascorr_pydra.metrics import DSEG_LABELS

__all__ = ["read_segmentation"]

TISSUES = tuple(DSEG_LABELS)
VOLUME_KEPT = 0.9  # of a segmentation on another grid, inside the image


def read_segmentation(
    img: nib.Nifti1Image, files: Mapping[str, str | Path]
) -> tuple[np.ndarray, dict[str, np.ndarray] | None]:
    """Labels and probabilities on the grid of ``img``.

    Parameters
    ----------
    img : NIfTI image, 3-D
    files : dict
        Files by kind, 'dseg' and, or, 'GM', 'WM' and 'CSF' (probabilities). Without 'dseg' a voxel has the likeliest
        tissue where one is likelier than none.

    Returns
    -------
    dseg : int8 array (I, J, K)
        0 outside, 1 GM, 2 WM, 3 CSF.
    probseg : dict of 'GM', 'WM' and 'CSF' to float32 arrays (I, J, K) from 0 to 1, or None

    Raises
    ------
    InvalidParameterError
        Neither a dseg file nor three probabilities.
    SegmentationError
        Other labels, or not 3-D.
    GridMismatchError
        A file lies elsewhere.
    """
    probabilities = {tissue: files[tissue] for tissue in TISSUES if tissue in files}
    probseg = None
    if len(probabilities) == len(TISSUES):
        probseg = {tissue: np.clip(_read(file, img, order=1), 0, 1) for tissue, file in probabilities.items()}
    if "dseg" in files:
        dseg = np.round(_read(files["dseg"], img, order=0))
        _check_labels(dseg, files["dseg"])
    elif probseg is not None:
        stacked = np.stack([probseg[tissue] for tissue in TISSUES])
        dseg = np.where(stacked.sum(0) > 0.5, stacked.argmax(0) + 1, 0)
    else:
        raise InvalidParameterError(
            "segmentation 'given' needs a dseg image, or the probabilities of GM, WM and CSF",
            file=img.get_filename(),
            value=", ".join(files) or "no file",
            next_step="Name the derivatives that hold them, or choose another segmentation.",
        )
    return dseg.astype(np.int8), probseg


def _check_labels(dseg: np.ndarray, file: str | Path) -> None:
    labels = {int(label) for label in np.unique(dseg)}
    unknown, missing = labels - {0, *DSEG_LABELS.values()}, {DSEG_LABELS["GM"], DSEG_LABELS["WM"]} - labels
    if unknown or missing:
        raise SegmentationError(
            "a segmentation has the labels 1 (GM), 2 (WM) and 3 (CSF)",
            file=file,
            value=f"labels {', '.join(str(label) for label in sorted(labels)[:10])}",
            next_step="Relabel it, or choose another segmentation.",
        )


def _read(file: str | Path, img: nib.Nifti1Image, *, order: int) -> np.ndarray:
    """Values of a file on the grid of an image, float32; of another grid, resampled (0 nearest, 1 linear)."""
    other = nifti.load(file)
    values = np.nan_to_num(np.asarray(other.dataobj, np.float32))
    values = values.reshape(values.shape[:3]) if values.size == np.prod(values.shape[:3]) else values
    if values.ndim != 3:
        raise SegmentationError("a 3-D segmentation is needed", file=file, value=f"shape {other.shape}")
    if nifti.same_grid(other, img):
        return values
    source = nib.Nifti1Image(values, other.affine)
    moved = np.asarray(resample_from_to(source, (img.shape[:3], img.affine), order=order).dataobj, np.float32)
    before, after = (
        np.abs(array).sum() * abs(np.linalg.det(image.affine[:3, :3]))
        for array, image in ((values, other), (moved, img))
    )
    if not before or after < VOLUME_KEPT * before:
        raise GridMismatchError(
            f"the segmentation does not lie inside the image {img.get_filename() or ''}".rstrip(),
            file=file,
            value=f"shapes {other.shape} and {img.shape[:3]}, {after / before if before else 0:.0%} of it inside",
            next_step="Give a segmentation of this image, or resample it to the image first.",
        )
    return moved
