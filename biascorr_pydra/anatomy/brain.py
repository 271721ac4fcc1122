"""Brain extraction (skull stripping) by method name.

========== ============================================================================================================
deepbet    A convolutional network trained on 7837 T1w images of 191 studies; for T1w-like contrasts. Its weights come
           with the Python package of that name.
template   Affine registration of the MNI152 template that nilearn carries, and its brain outline carried back; for any
           contrast. As the outline is a template's, it does not follow the folds of the individual brain.
given      A mask file.
none       No mask.
auto       deepbet where the suffix names a T1w-like contrast, template otherwise.
========== ============================================================================================================

References
----------
Fisch et al. deepbet: fast brain extraction of T1-weighted MRI using convolutional neural networks. Comput Biol Med 179,
2024. doi:10.1016/j.compbiomed.2024.108845
Avants et al. A reproducible evaluation of ANTs similarity metric performance in brain image registration. NeuroImage
54(3), 2011. doi:10.1016/j.neuroimage.2010.09.025
Fonov et al. Unbiased average age-appropriate atlases for pediatric studies. NeuroImage 54(1), 2011.
doi:10.1016/j.neuroimage.2010.07.033
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

from biascorr_pydra.errors import InvalidParameterError, SegmentationError, UnknownMethodError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.files import write_text

from . import deepbet, template

__all__ = [
    "METHODS",
    "T1W_LIKE",
    "BrainMask",
    "MaskFiles",
    "extract_brain",
    "extract_file",
    "resolve_method",
    "strip_file",
]

METHODS = ("auto", "deepbet", "template", "given", "none")
#: BIDS suffixes whose gray values are those of a T1w image.
T1W_LIKE = ("T1w", "UNIT1", "MPRAGE", "inplaneT1")

# A brain is neither smaller nor larger than this, so the extraction has failed ...
POSSIBLE_ML = (20.0, 3000.0)
# ... and an adult's brain with its CSF lies between these: outside, a slab, a child, or a mask to look at.
USUAL_ML = (700.0, 2300.0)


@dataclass(frozen=True)
class BrainMask:
    """A brain mask and how it was made.

    Attributes
    ----------
    mask : boolean array, shape (I, J, K)
        On the image's own grid, in its own orientation.
    method : str
        'deepbet', 'template' or 'given'.
    record : dict
        method, volume_ml, warnings and software versions; JSON-serialisable.
    """

    mask: np.ndarray
    method: str
    record: Mapping[str, Any]


def resolve_method(method: str, suffix: str | None) -> str:
    """The method that ``auto`` stands for; any other is returned as it is.

    Raises
    ------
    UnknownMethodError
    """
    if method not in METHODS:
        raise UnknownMethodError(
            "no brain extraction of that name", value=repr(method), next_step=f"Methods: {', '.join(METHODS)}."
        )
    if method != "auto":
        return method
    return "deepbet" if suffix in T1W_LIKE else "template"


def extract_brain(
    img: nib.Nifti1Image,
    *,
    method: str = "auto",
    mask_file: str | Path | None = None,
    device: str = "auto",
    suffix: str | None = None,
) -> BrainMask | None:
    """Make a brain mask on the grid of an image.

    Parameters
    ----------
    img : NIfTI image, 3-D
    method : str
        One of :data:`METHODS`.
    mask_file : path, optional
        The mask, for method 'given'; resampled if it lies on another grid
        (see :func:`biascorr_pydra.images.nifti.load_mask`).
    device : {'auto', 'cpu', 'cuda'}
        For deepbet; the other methods run on the CPU.
    suffix : str, optional
        BIDS suffix of the image, for method 'auto'.

    Returns
    -------
    BrainMask, or None for method 'none'

    Raises
    ------
    UnknownMethodError
    InvalidParameterError
        Method 'given' without a mask file, or a device that is not there.
    InvalidImageError, InvalidMaskError, GridMismatchError
        From :mod:`biascorr_pydra.images.nifti`.
    SegmentationError
        No brain was found, or what was found cannot be one.
    """
    chosen = resolve_method(method, suffix)
    if chosen == "none":
        return None
    if chosen == "given":
        return _given(img, mask_file)
    data, _, _ = nifti.inspect(img)
    # Both methods see the closest RAS+ order of axes, so that the mask does not depend on how the image is stored.
    turn = io_orientation(img.affine)
    affine = img.affine @ inv_ornt_aff(turn, data.shape)
    oriented, name = apply_orientation(data, turn), img.get_filename()
    if chosen == "deepbet":
        mask, package = deepbet.find_brain(oriented, device, name=name), "deepbet"
    else:
        mask, package = template.find_brain(oriented, affine, name=name), "antspyx"
    mask = np.ascontiguousarray(apply_orientation(mask, ornt_transform(axcodes2ornt("RAS"), turn)))
    volume = _volume_ml(mask, img)
    record = {
        "method": chosen,
        "volume_ml": round(volume, 1),
        "mask_file": None,
        "resampled": False,
        "warnings": _check_volume(volume, chosen, name),
        "software": {package: version(package)},
    }
    return BrainMask(mask, chosen, record)


def _given(img: nib.Nifti1Image, mask_file: str | Path | None) -> BrainMask:
    if mask_file is None:
        raise InvalidParameterError(
            "brain extraction 'given' needs a mask file",
            file=img.get_filename(),
            next_step="Check that --derivatives holds one of this scan, or choose another method.",
        )
    mask, resampled = nifti.load_mask(mask_file, img)
    warnings = ["The given mask lies on another grid and was resampled (nearest neighbour)."] if resampled else []
    record = {
        "method": "given",
        "volume_ml": round(_volume_ml(mask, img), 1),
        "mask_file": Path(str(mask_file)).name,
        "resampled": resampled,
        "warnings": warnings,
        "software": {},
    }
    return BrainMask(mask, "given", record)


def _volume_ml(mask: np.ndarray, img: nib.Nifti1Image) -> float:
    return float(mask.sum() * abs(np.linalg.det(img.affine[:3, :3])) / 1000)


def _check_volume(volume: float, method: str, name: str | None) -> list[str]:
    low, high = POSSIBLE_ML
    if not low <= volume <= high:
        raise SegmentationError(
            f"brain extraction by {method!r} did not find a brain of between {low:g} and {high:g} ml",
            file=name,
            value=f"{volume:.1f} ml",
            next_step="Check the image's orientation and voxel size, try another method, or give a mask.",
        )
    low, high = USUAL_ML
    if low <= volume <= high:
        return []
    return [
        f"The brain mask has {volume:.0f} ml; {low:g} to {high:g} ml is usual for an adult's whole brain. Look at it."
    ]


# --- between files


class MaskFiles(NamedTuple):
    """A brain mask (uint8, on the image's grid) and the record of how it was made (JSON)."""

    mask_file: Path
    record_file: Path


def extract_file(
    in_file: str | Path,
    folder: str | Path,
    *,
    method: str = "auto",
    suffix: str | None = None,
    mask_file: str | Path | None = None,
    device: str = "auto",
) -> MaskFiles:
    """Make a brain mask on an image's grid.

    Parameters
    ----------
    in_file : NIfTI file, 3-D
    folder : where mask.nii.gz and brain.json go, in the place of an earlier run's
    method, suffix, mask_file, device
        See :func:`extract_brain`.

    Raises
    ------
    BiasCorrError
        One of its leaves; nothing is written then.
    """
    started = time.perf_counter()
    img = nifti.load(in_file)
    nifti.inspect(img)  # an image that cannot be corrected fails here, with its own message
    brain = extract_brain(img, method=method, mask_file=mask_file, device=device, suffix=suffix)
    if brain is None:
        raise InvalidParameterError(
            "this step makes a brain mask", value=f"method {method!r}", next_step="Leave it out."
        )
    out_file = Path(folder) / "mask.nii.gz"
    nifti.save(nifti.save_like(brain.mask.reshape(img.shape), img, dtype=np.uint8), out_file)
    record = {"Name": brain.method, **brain.record, "runtime_s": round(time.perf_counter() - started, 3)}
    record_file = Path(folder) / "brain.json"
    write_text(record_file, json.dumps(record, indent=2, default=str))
    return MaskFiles(out_file, record_file)


def strip_file(in_file: str | Path, mask_file: str | Path, folder: str | Path) -> Path:
    """Set everything outside a brain mask to 0; returns the image, brain.nii.gz (float32) in ``folder``.

    Of a 4-D series, in every frame.

    Raises
    ------
    BiasCorrError
        One of its leaves; nothing is written then.
    """
    img = nifti.load(in_file)
    if len(img.shape) == 4 and img.shape[3] > 1:
        nifti.check_real(img)
        data = np.asarray(img.dataobj, np.float32)
    else:
        data, _, _ = nifti.inspect(img)
    mask = nifti.load_mask(mask_file, img)[0]
    inside = mask.reshape(mask.shape + (1,) * (data.ndim - 3))
    out_file = Path(folder) / "brain.nii.gz"
    nifti.save(nifti.save_like(np.where(inside, data, 0).reshape(img.shape), img), out_file)
    return out_file
