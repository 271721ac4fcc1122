"""Tissue segmentation by method name: gray matter, white matter and CSF inside a brain mask.

======== ================================================================================================
atropos  ANTs' Atropos: k-means start, then a mixture of Gaussians with a Markov random field (antspyx).
kmeans   ANTs' k-means only (antspyx): quicker, no spatial prior.
given    A segmentation, and probabilities if there are any, made elsewhere.
none     No segmentation.
======== ================================================================================================

References
----------
Avants et al. An open source multivariate framework for n-tissue segmentation with evaluation on public data.
Neuroinformatics 9(4), 2011. doi:10.1007/s12021-011-9109-y
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from . import image
from .errors import GridMismatchError, InvalidParameterError, SegmentationError, UnknownMethodError
from .metrics import DSEG_LABELS

__all__ = ["METHODS", "Tissue", "segment_tissue", "segmentable"]

METHODS = ("atropos", "kmeans", "given", "none")
# Tissues from dark to bright; suffixes that are not here have no order that could be relied on.
ORDER = {
    **dict.fromkeys(("T1w", "UNIT1", "inplaneT1"), ("CSF", "GM", "WM")),
    **dict.fromkeys(("T2w", "inplaneT2"), ("WM", "GM", "CSF")),
    # Proton density: gray matter is brighter than white; CSF comes out near or above gray matter at the usual TR.
    "PDw": ("WM", "GM", "CSF"),
    "FLAIR": ("CSF", "WM", "GM"),
}
MRF = {"atropos": "[0.1,1x1x1]", "kmeans": "[0,1x1x1]"}
ITERATIONS = {"atropos": "[5,0]", "kmeans": "[0,0]"}
STRIPPED_ZEROS = 0.5
MIN_VOXELS = 300


@dataclass(frozen=True)
class Tissue:
    """A segmentation on the image's grid.

    Attributes
    ----------
    dseg : uint8 array, shape (I, J, K)
        0 outside, 1 GM, 2 WM, 3 CSF: the labels that fMRIPrep writes.
    probseg : dict or None
        Tissue -> float32 array of probabilities.
    method : str
    record : dict
        Volumes in ml, the assumed order of intensities, software; JSON-serialisable.
    """

    dseg: np.ndarray
    probseg: Mapping[str, np.ndarray] | None
    method: str
    record: Mapping[str, Any]


def segmentable(suffix: str | None, method: str) -> bool:
    """Whether this method can segment images of this BIDS suffix: it must know which tissue is the brighter."""
    return method == "given" or (method != "none" and suffix in ORDER)


def segment_tissue(
    img,
    mask: np.ndarray | None,
    *,
    method: str = "atropos",
    suffix: str | None = "T1w",
    given: Mapping[str, str | Path] | None = None,
) -> Tissue:
    """Segment one image, best one that has been corrected for its bias field.

    Parameters
    ----------
    img : NIfTI image, 3-D
    mask : boolean array (I, J, K), or None for an image that is skull-stripped already
    method : one of :data:`METHODS`, not "none"
    suffix : BIDS suffix; gives the order of the tissues' intensities
    given : for method "given", files by kind: "dseg", and optionally "GM", "WM", "CSF"

    Raises
    ------
    UnknownMethodError, InvalidParameterError
        The method or the suffix cannot be used.
    SegmentationError
        There is no mask and the image is a whole head, no dseg was given, or a tissue came out empty.
    GridMismatchError
        What was given is not on the image's grid.
    """
    if method not in METHODS or method == "none":
        raise UnknownMethodError(
            "no tissue segmentation of that name", value=repr(method), next_step=f"Methods: {', '.join(METHODS)}."
        )
    if not segmentable(suffix, method):
        raise InvalidParameterError(
            "the order of the tissues' intensities is not known for this contrast",
            value=repr(suffix),
            next_step=f"Known: {', '.join(ORDER)}. Or give a segmentation.",
        )
    if method == "given":
        return _given(img, given or {})
    data, valid, _ = image.inspect(img)
    mask = _stripped_brain(data, img) if mask is None else mask
    return _classify(data, mask & valid & (data > 0), img, method, suffix)


def _stripped_brain(data: np.ndarray, img) -> np.ndarray:
    if (data == 0).mean() < STRIPPED_ZEROS:
        raise SegmentationError(
            "a whole head cannot be segmented without a brain mask",
            file=img.get_filename() or "image",
            value=f"{(data == 0).mean():.0%} of the voxels are 0",
            next_step="Add skull stripping or give a mask; or go without segmentation.",
        )
    return data > 0


def _classify(data, mask, img, method: str, suffix: str) -> Tissue:
    import ants

    name = img.get_filename() or "image"
    if mask.sum() < MIN_VOXELS:
        raise SegmentationError(
            "too few voxels inside the mask to tell tissues apart", file=name, value=f"{int(mask.sum())} voxels"
        )
    spacing = image.voxel_size_mm(img)
    # Extreme values would take a class of their own.
    clipped = np.clip(data, 0, np.percentile(data[mask], 99.8)).astype(np.float32)
    found = ants.atropos(
        a=ants.from_numpy(clipped, spacing=spacing),
        x=ants.from_numpy(mask.astype(np.float32), spacing=spacing),
        i="kmeans[3]",
        m=MRF[method],
        c=ITERATIONS[method],
        priorweight=0,
        verbose=0,
    )
    labels = np.rint(found["segmentation"].numpy()).astype(int) * mask
    probabilities = [image_.numpy() for image_ in found["probabilityimages"]]
    means = [data[labels == k].mean() if (labels == k).any() else np.nan for k in (1, 2, 3)]
    if np.isnan(means).any():
        raise SegmentationError(
            "a tissue came out empty", file=name, value=f"class means {means}", next_step="Look at the mask and image."
        )
    dseg, probseg = np.zeros(data.shape, np.uint8), {}
    for tissue, k in zip(ORDER[suffix], np.argsort(means), strict=True):
        dseg[labels == k + 1] = DSEG_LABELS[tissue]
        probseg[tissue] = np.where(mask, np.clip(probabilities[k], 0, 1), 0).astype(np.float32)
    record = {"dark_to_bright": list(ORDER[suffix]), "antspyx_version": version("antspyx")}
    return Tissue(dseg, probseg, method, {**record, **_volumes(dseg, spacing)})


def _volumes(dseg: np.ndarray, spacing) -> dict[str, float]:
    ml = float(np.prod(spacing)) / 1000
    return {f"{tissue.lower()}_ml": round(int((dseg == k).sum()) * ml, 1) for tissue, k in DSEG_LABELS.items()}


def _given(img, files: Mapping[str, str | Path]) -> Tissue:
    if "dseg" not in files:
        raise SegmentationError(
            "no segmentation of this scan was found among the derivatives",
            file=img.get_filename() or "image",
            next_step="Check --derivatives for its dseg, or segment with atropos or kmeans.",
        )
    shape = img.shape[:3]
    dseg = np.rint(_on_grid(files["dseg"], img)).astype(int)
    if not np.isin(dseg, [0, *DSEG_LABELS.values()]).all() or not dseg.any():
        raise SegmentationError(
            "a dseg has the labels 1 GM, 2 WM, 3 CSF",
            file=files["dseg"],
            value=f"labels {np.unique(dseg)[:10].tolist()}",
            next_step="Relabel it.",
        )
    probseg = {tissue: _on_grid(files[tissue], img) for tissue in DSEG_LABELS if tissue in files}
    record = {"file": str(files["dseg"]), **_volumes(dseg.reshape(shape), image.voxel_size_mm(img))}
    return Tissue(dseg.astype(np.uint8), probseg or None, "given", record)


def _on_grid(file, img) -> np.ndarray:
    other = image.load(file)
    if not image.same_grid(other, img):
        raise GridMismatchError(
            "a given segmentation must be on the scan's grid",
            file=file,
            value=f"shapes {other.shape} and {img.shape}",
            next_step="Resample it to the scan (nearest neighbor for labels).",
        )
    return np.asarray(other.dataobj, np.float32).reshape(img.shape[:3])
