"""Tissue segmentation by method name: gray matter, white matter and CSF inside a brain mask.

============= =========================================================================================================
atropos       ANTs' Atropos (antspyx): Gaussian mixture of three classes from k-means, with a Markov random field.
kmeans        ANTs' k-means segmentation (antspyx): the same machinery with a weaker field, on normalized intensities.
deepnormalize DeepNormalize's segmenter, on what its generator makes of the image; T1-weighted images only.
given         A segmentation made elsewhere, labelled as fMRIPrep does: 1 GM, 2 WM, 3 CSF.
none          No segmentation.
============= =========================================================================================================

Classes found from intensities get their names by their order, which the contrast decides (:data:`CONTRAST_ORDER`).
Where a suffix does not tell the order, nothing is segmented: a guess would score every method on the wrong tissues. PDw
is left out because CSF and gray matter overlap in it, T2starw and PDT2 because the order depends on the echo times.

Segment an image that was corrected for its bias field, once per scan, and score every method on that segmentation.

References
----------
Avants et al. An open source multivariate framework for n-tissue segmentation with evaluation on public data.
Neuroinformatics 9(4), 2011. doi:10.1007/s12021-011-9109-y
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.processing import resample_from_to
from scipy import ndimage

from biascorr_pydra.errors import (
    GridMismatchError,
    InvalidMaskError,
    InvalidParameterError,
    SegmentationError,
    UnknownMethodError,
)
from biascorr_pydra.images import nifti
from biascorr_pydra.metrics import DSEG_LABELS

__all__ = ["CONTRAST_ORDER", "METHODS", "Tissue", "reason_against", "segment_tissue"]

METHODS = ("atropos", "kmeans", "deepnormalize", "given", "none")
TISSUES = tuple(DSEG_LABELS)

_T1W, _T2W = ("CSF", "GM", "WM"), ("WM", "GM", "CSF")
#: BIDS suffix -> tissues from the darkest to the brightest.
CONTRAST_ORDER = {
    "T1w": _T1W,
    "UNIT1": _T1W,
    "MPRAGE": _T1W,
    "inplaneT1": _T1W,
    "T2w": _T2W,
    "inplaneT2": _T2W,
    "FLAIR": ("CSF", "WM", "GM"),
}

#: What DeepNormalize's packaged weights were trained on.
LEARNT_SUFFIXES = tuple(suffix for suffix, order in CONTRAST_ORDER.items() if order == _T1W)

MRF_WEIGHT = 0.2
ITERATIONS = 5
MIN_VOXELS = 1000
# A tissue with a smaller part of the brain than this is a sign that the classes do not stand for tissues.
SMALL_FRACTION = 0.03
# Part of the median intensity in the mask below which a voxel is no tissue, where white matter is the darkest.
DARK = 0.4
_TEMPDIR_LOCK = threading.Lock()


@dataclass(frozen=True)
class Tissue:
    """A tissue segmentation and how it was made.

    Attributes
    ----------
    dseg : int8 array, shape (I, J, K)
        0 outside, 1 GM, 2 WM, 3 CSF.
    probseg : dict of 'GM', 'WM' and 'CSF' to float32 arrays of that shape with values from 0 to 1, or None
    method : str
        'atropos', 'kmeans', 'deepnormalize' or 'given'.
    record : dict
        method, order of intensities, volumes_ml, warnings and software versions; JSON-serialisable.
    """

    dseg: np.ndarray
    probseg: dict[str, np.ndarray] | None
    method: str
    record: Mapping[str, Any]


def reason_against(suffix: str | None, method: str, *, masked: bool = True) -> str | None:
    """Why an image of this suffix cannot be segmented by this method, as a sentence; None if it can.

    Parameters
    ----------
    suffix : str or None
        BIDS suffix.
    method : str
    masked : bool
        Whether there is a brain mask.

    Raises
    ------
    UnknownMethodError
    """
    if method not in METHODS:
        raise UnknownMethodError(
            "no tissue segmentation of that name", value=repr(method), next_step=f"Methods: {', '.join(METHODS)}."
        )
    if method == "none":
        return "no tissue segmentation was asked for"
    if method == "given":
        return None
    if suffix not in CONTRAST_ORDER:
        return f"the order of the tissues' intensities is not known for suffix {suffix!r}"
    if method == "deepnormalize" and suffix not in LEARNT_SUFFIXES:
        return f"{method!r} has learnt {', '.join(LEARNT_SUFFIXES)}, not {suffix!r}"
    return None if masked else f"segmentation by {method!r} needs a brain mask"


def segment_tissue(
    img,
    mask: np.ndarray | None,
    *,
    method: str = "atropos",
    suffix: str | None = None,
    given: Mapping[str, str | Path] | None = None,
    device: str = "cpu",
) -> Tissue | None:
    """Segment gray matter, white matter and CSF.

    Parameters
    ----------
    img : NIfTI image, 3-D
        Best corrected for its bias field.
    mask : boolean array, shape (I, J, K)
        Brain mask; not needed for method 'given'.
    method : str
        One of :data:`METHODS`.
    suffix : str
        BIDS suffix of the image.
    given : dict, optional
        For method 'given': files by kind, 'dseg' and, or, 'GM', 'WM' and 'CSF' (probabilities).
    device : "cpu" or "cuda"
        For method 'deepnormalize'.

    Returns
    -------
    Tissue, or None for method 'none'

    Raises
    ------
    SegmentationError
        The contrast's order of tissues is not known, there is no mask, or no three classes were found.
    InvalidMaskError
        The mask has fewer voxels than a segmentation needs.
    InvalidParameterError, GridMismatchError
        For 'given': no file, or one of another place.
    UnknownMethodError
    """
    reason = reason_against(suffix, method, masked=mask is not None)
    if method == "none":
        return None
    if reason:
        raise SegmentationError(
            f"{reason}, so that nothing was segmented",
            file=img.get_filename(),
            next_step="Give a segmentation or a mask, or choose segmentation 'none'.",
        )
    if method == "given":
        return _given(img, dict(given or {}))
    data, valid, _ = nifti.inspect(img)
    inside = np.asarray(mask, bool) & valid
    if inside.sum() < MIN_VOXELS:
        raise InvalidMaskError(
            f"a segmentation needs a mask of at least {MIN_VOXELS} voxels",
            file=img.get_filename(),
            value=int(inside.sum()),
            next_step="Check the brain extraction.",
        )
    if method == "deepnormalize":
        return _learnt(img, data, inside, device)
    order = CONTRAST_ORDER[suffix]
    if order[0] == "WM":
        # Nothing in a brain is this dark in such an image: skull inside a generous mask, which would be taken for WM.
        inside &= data > DARK * np.median(data[inside])
    # In RAS+ order the result does not depend on how the image is stored: the random field is swept voxel by voxel.
    turn = io_orientation(img.affine)
    back = ornt_transform(axcodes2ornt("RAS"), turn)
    sizes = np.linalg.norm((img.affine @ inv_ornt_aff(turn, data.shape))[:3, :3], axis=0)
    data, inside = (apply_orientation(array, turn) for array in (data, inside))
    classes, probabilities = _ants_classes(data, inside, tuple(sizes.tolist()), method, img.get_filename())
    ranks = _ranks(data, classes, method, img.get_filename())
    labels = np.zeros(4, np.int8)
    for tissue, rank in zip(order, ranks, strict=True):
        labels[rank + 1] = DSEG_LABELS[tissue]
    dseg = np.ascontiguousarray(apply_orientation(labels[classes], back))
    by_tissue = dict(zip(order, ranks, strict=True))
    probseg = {t: np.ascontiguousarray(apply_orientation(probabilities[by_tissue[t]], back)) for t in TISSUES}
    return _tissue(img, dseg, probseg, method, order=list(order))


def _tissue(img, dseg, probseg, method: str, **record) -> Tissue:
    voxel_ml = float(abs(np.linalg.det(img.affine[:3, :3]))) / 1000
    counts = {tissue: int((dseg == label).sum()) for tissue, label in DSEG_LABELS.items()}
    total = sum(counts.values())
    warnings = [
        f"Only {count / total:.1%} of the segmented brain is {tissue}. Look at the segmentation."
        for tissue, count in counts.items()
        if count < SMALL_FRACTION * total
    ]
    volumes = {tissue: round(count * voxel_ml, 1) for tissue, count in counts.items()}
    software = {"antspyx": version("antspyx")} if method in ("atropos", "kmeans") else {}
    software |= {"torch": version("torch")} if method == "deepnormalize" else {}
    record = {"method": method, **record, "volumes_ml": volumes, "warnings": warnings, "software": software}
    return Tissue(dseg, probseg, method, record)


# --- deepnormalize


def _learnt(img, data, inside, device: str) -> Tissue:
    from biascorr_pydra.methods.deepnormalize import model  # torch, which nobody else here needs

    found = model.normalize_array([data], img.affine, inside, speed="fast", device=device)
    probseg = {tissue: found.probabilities[tissue] * inside for tissue in TISSUES}
    return _tissue(img, found.dseg().astype(np.int8), probseg, "deepnormalize", **found.record)


# --- antspyx


def _ants_classes(data, inside, voxel_size_mm, method, name) -> tuple[np.ndarray, list[np.ndarray]]:
    """Classes 1, 2, 3 (0 outside) and the probability of each, by intensity alone."""
    import ants

    box = ndimage.find_objects(inside.astype(np.int8))[0]  # Atropos takes time for every voxel, masked or not
    # A few very bright voxels (vessels, skin) would take a class of their own.
    low, high = np.percentile(data[inside], (0.5, 99.5))
    # Axes and place play no part, and ITK refuses some real headers.
    values, mask = (
        ants.from_numpy(np.ascontiguousarray(array[box], np.float32), spacing=voxel_size_mm)
        for array in (np.clip(data, low, high), inside)
    )
    try:
        with _own_temporary_folder():  # Atropos leaves its probability images in the temporary folder
            found = _run_ants(values, mask, method)
    except Exception as error:  # antspyx raises nothing more particular
        raise SegmentationError(
            f"{method!r} failed: it may be that the brain has not three classes of intensity",
            file=name,
            value=str(error),
            next_step="Look at the image and its mask, or give a segmentation.",
        ) from error

    def whole(part):
        array = np.zeros(data.shape, np.float32)
        array[box] = np.where(inside[box], part.numpy(), 0)
        return array

    return np.round(whole(found["segmentation"])).astype(np.int8), [whole(p) for p in found["probabilityimages"]]


def _run_ants(values, mask, method):
    import ants

    if method == "kmeans":
        return ants.kmeans_segmentation(values, 3, kmask=mask)
    return ants.atropos(a=values, x=mask, i="Kmeans[3]", m=f"[{MRF_WEIGHT},1x1x1]", c=f"[{ITERATIONS},0]", v=0)


@contextmanager
def _own_temporary_folder():
    with _TEMPDIR_LOCK, tempfile.TemporaryDirectory(prefix="biascorr-") as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def _ranks(data, classes, method, name) -> list[int]:
    """Indices of the three classes from the darkest to the brightest."""
    means = [float(data[classes == k].mean()) if (classes == k).any() else np.nan for k in (1, 2, 3)]
    if not np.all(np.isfinite(means)) or len(set(means)) < 3:
        raise SegmentationError(
            f"{method!r} did not find three classes of intensity in the brain",
            file=name,
            value=f"class means {', '.join(f'{mean:g}' for mean in means)}",
            next_step="Look at the image and its mask, or give a segmentation.",
        )
    return [int(k) for k in np.argsort(means)]


# --- given


def _given(img, files: dict) -> Tissue:
    probabilities = {tissue: files[tissue] for tissue in TISSUES if tissue in files}
    if "dseg" not in files and len(probabilities) < len(TISSUES):
        raise InvalidParameterError(
            "segmentation 'given' needs a dseg image, or the probabilities of GM, WM and CSF",
            file=img.get_filename(),
            value=", ".join(files) or "no file",
            next_step="Name the derivatives that hold them, or choose another segmentation.",
        )
    probseg = None
    if len(probabilities) == len(TISSUES):
        probseg = {tissue: np.clip(_read(file, img, order=1), 0, 1) for tissue, file in probabilities.items()}
    if "dseg" in files:
        dseg = np.round(_read(files["dseg"], img, order=0))
        _check_labels(dseg, files["dseg"])
    else:
        stacked = np.stack([probseg[tissue] for tissue in TISSUES])
        dseg = np.where(stacked.sum(0) > 0.5, stacked.argmax(0) + 1, 0)
    names = [Path(str(file)).name for file in files.values()]
    return _tissue(img, dseg.astype(np.int8), probseg, "given", files=names)


def _check_labels(dseg: np.ndarray, file) -> None:
    found = {int(label) for label in np.unique(dseg)}
    unknown, missing = found - {0, *DSEG_LABELS.values()}, {DSEG_LABELS["GM"], DSEG_LABELS["WM"]} - found
    if unknown or missing:
        raise SegmentationError(
            "a segmentation has the labels 1 (GM), 2 (WM) and 3 (CSF)",
            file=file,
            value=f"labels {', '.join(str(label) for label in sorted(found)[:10])}",
            next_step="Relabel it, or choose another segmentation.",
        )


def _read(file, img, *, order: int) -> np.ndarray:
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
    before, after = (np.abs(a).sum() * abs(np.linalg.det(i.affine[:3, :3])) for a, i in ((values, other), (moved, img)))
    if not before or after < 0.9 * before:
        raise GridMismatchError(
            f"the segmentation does not lie inside the image {img.get_filename() or ''}".rstrip(),
            file=file,
            value=f"shapes {other.shape} and {img.shape[:3]}, {after / before if before else 0:.0%} of it inside",
            next_step="Give a segmentation of this image, or resample it to the image first.",
        )
    return moved
