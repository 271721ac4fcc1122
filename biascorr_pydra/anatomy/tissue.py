"""Tissue segmentation by method name: gray matter, white matter and CSF inside a brain mask.

============= =========================================================================================================
atropos       ANTs' Atropos (antspyx): Gaussian mixture of three classes from k-means, with a Markov random field.
kmeans        ANTs' k-means segmentation (antspyx): the same machinery with a weaker field, on normalized intensities.
deepnormalize DeepNormalize's segmenter, on what its generator makes of the image; T1-weighted images only.
given         A segmentation made elsewhere, labelled as fMRIPrep does: 1 GM, 2 WM, 3 CSF.
none          No segmentation.
============= =========================================================================================================

Classes found from intensities get their names by their order, which the contrast decides (:mod:`.contrast`).
Where a suffix does not tell the order, nothing is segmented: a guess would score every method on the wrong tissues.

Segment an image that was corrected for its bias field, once per scan, and score every method on that segmentation.

References
----------
Avants et al. An open source multivariate framework for n-tissue segmentation with evaluation on public data.
Neuroinformatics 9(4), 2011. doi:10.1007/s12021-011-9109-y
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from biascorr_pydra.errors import InvalidMaskError, InvalidParameterError, SegmentationError, UnknownMethodError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.files import write_text
from biascorr_pydra.metrics import DSEG_LABELS
from biascorr_pydra.resources import resolve_device

from .classes import find_classes, ranks
from .contrast import CONTRAST_ORDER
from .given import TISSUES, read_segmentation

__all__ = [
    "METHODS",
    "NETWORKS",
    "Tissue",
    "TissueFiles",
    "reason_against",
    "segment_file",
    "segment_tissue",
]

METHODS = ("atropos", "kmeans", "deepnormalize", "given", "none")
#: Segmentation by networks -> the correction method whose networks and packaged weights they are.
NETWORKS = {"deepnormalize": "deepnormalize"}

#: What DeepNormalize's packaged weights were trained on.
LEARNT_SUFFIXES = tuple(suffix for suffix, order in CONTRAST_ORDER.items() if order == CONTRAST_ORDER["T1w"])

MIN_VOXELS = 1000
# A tissue with a smaller part of the brain than this is a sign that the classes do not stand for tissues.
SMALL_FRACTION = 0.03
# Part of the median intensity in the mask below which a voxel is no tissue, where white matter is the darkest.
DARK = 0.4


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
    img: nib.Nifti1Image,
    mask: np.ndarray | None,
    *,
    method: str = "atropos",
    suffix: str | None = None,
    given: Mapping[str, str | Path] | None = None,
    device: str = "auto",
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
    device : {'auto', 'cpu', 'cuda'}
        For method 'deepnormalize'; the other methods run on the CPU.

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
        For 'given': no file, or one of another place. For 'deepnormalize': a device that is not there.
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
        files = given or {}
        names = [Path(str(file)).name for file in files.values()]
        return _tissue(img, *read_segmentation(img, files), "given", files=names)
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
        return _by_network(img, data, inside, device)
    return _by_intensity(img, data, inside, method, CONTRAST_ORDER[str(suffix)])


def _by_network(img: nib.Nifti1Image, data: np.ndarray, inside: np.ndarray, device: str) -> Tissue:
    from biascorr_pydra.methods.deepnormalize import model  # torch, which nobody else here needs

    device = resolve_device(device)
    normalized = model.normalize_array([data], img.affine, inside, speed="fast", device=device)
    probseg = {tissue: normalized.probabilities[tissue] * inside for tissue in TISSUES}
    dseg = normalized.dseg().astype(np.int8)
    return _tissue(img, dseg, probseg, "deepnormalize", **normalized.record, device=device)


def _by_intensity(
    img: nib.Nifti1Image, data: np.ndarray, inside: np.ndarray, method: str, order: tuple[str, ...]
) -> Tissue:
    """Classes of intensity, named by the order that the contrast gives, from the darkest to the brightest."""
    if order[0] == "WM":
        # Nothing in a brain is this dark in such an image: skull inside a generous mask, which would be taken for WM.
        inside = inside & (data > DARK * np.median(data[inside]))
    # In RAS+ order the result does not depend on how the image is stored: the random field is swept voxel by voxel.
    turn = io_orientation(img.affine)
    back = ornt_transform(axcodes2ornt("RAS"), turn)
    sizes = np.linalg.norm((img.affine @ inv_ornt_aff(turn, data.shape))[:3, :3], axis=0)
    data, inside = (apply_orientation(array, turn) for array in (data, inside))
    name = img.get_filename()
    classes, probabilities = find_classes(data, inside, tuple(sizes.tolist()), method, name=name)
    index_of = dict(zip(order, ranks(data, classes, method, name=name), strict=True))
    labels = np.zeros(len(order) + 1, np.int8)
    for tissue, index in index_of.items():
        labels[index + 1] = DSEG_LABELS[tissue]
    dseg = np.ascontiguousarray(apply_orientation(labels[classes], back))
    probseg = {
        tissue: np.ascontiguousarray(apply_orientation(probabilities[index_of[tissue]], back)) for tissue in TISSUES
    }
    return _tissue(img, dseg, probseg, method, order=list(order))


def _tissue(
    img: nib.Nifti1Image, dseg: np.ndarray, probseg: dict[str, np.ndarray] | None, method: str, **details: Any
) -> Tissue:
    """The result with its record, in which what is particular to the method follows its name."""
    voxel_ml = float(abs(np.linalg.det(img.affine[:3, :3]))) / 1000
    counts = {tissue: int((dseg == label).sum()) for tissue, label in DSEG_LABELS.items()}
    total = sum(counts.values())
    warnings = [
        f"Only {count / total:.1%} of the segmented brain is {tissue}. Look at the segmentation."
        for tissue, count in counts.items()
        if count < SMALL_FRACTION * total
    ]
    volumes = {tissue: round(count * voxel_ml, 1) for tissue, count in counts.items()}
    packages = {"atropos": ["antspyx"], "kmeans": ["antspyx"], "deepnormalize": ["torch"]}.get(method, [])
    software = {package: version(package) for package in packages}
    record = {"method": method, **details, "volumes_ml": volumes, "warnings": warnings, "software": software}
    return Tissue(dseg, probseg, method, record)


# --- between files


class TissueFiles(NamedTuple):
    """A segmentation (uint8: 1 GM, 2 WM, 3 CSF), probabilities (float32) where the method has them, and the record."""

    dseg_file: Path
    gm_file: Path | None
    wm_file: Path | None
    csf_file: Path | None
    record_file: Path


def segment_file(
    in_file: str | Path,
    folder: str | Path,
    *,
    mask_file: str | Path | None = None,
    method: str = "atropos",
    suffix: str | None = None,
    given_dseg: str | Path | None = None,
    given_gm: str | Path | None = None,
    given_wm: str | Path | None = None,
    given_csf: str | Path | None = None,
    device: str = "auto",
) -> TissueFiles:
    """Segment grey matter, white matter and CSF.

    Parameters
    ----------
    in_file : NIfTI file, 3-D, best corrected for its bias field
    folder : where dseg.nii.gz, GM.nii.gz, WM.nii.gz, CSF.nii.gz and tissue.json go, in the place of an earlier run's
    mask_file : brain mask
    method, suffix, device
        See :func:`segment_tissue`.
    given_dseg, given_gm, given_wm, given_csf : optional
        For method "given": a segmentation or probabilities made elsewhere.

    Raises
    ------
    BiasCorrError
        One of its leaves; nothing is written then.
    """
    started = time.perf_counter()
    folder = Path(folder)
    img = nifti.load(in_file)
    mask = None if mask_file is None else nifti.load_mask(mask_file, img)[0]
    by_kind = {"dseg": given_dseg, "GM": given_gm, "WM": given_wm, "CSF": given_csf}
    given = {kind: file for kind, file in by_kind.items() if file is not None}
    tissue = segment_tissue(img, mask, method=method, suffix=suffix, given=given, device=device)
    if tissue is None:
        raise InvalidParameterError(
            "this step makes a segmentation", value=f"method {method!r}", next_step="Leave it out."
        )
    dseg_file = folder / "dseg.nii.gz"
    nifti.save(nifti.save_like(tissue.dseg.reshape(img.shape), img, dtype=np.uint8), dseg_file)
    files: dict[str, Path] = {}
    for name, values in (tissue.probseg or {}).items():
        files[name] = folder / f"{name}.nii.gz"
        nifti.save(nifti.save_like(values.reshape(img.shape), img), files[name])
    record = {"Name": tissue.method, **tissue.record, "runtime_s": round(time.perf_counter() - started, 3)}
    record_file = folder / "tissue.json"
    write_text(record_file, json.dumps(record, indent=2, default=str))
    return TissueFiles(dseg_file, files.get("GM"), files.get("WM"), files.get("CSF"), record_file)
