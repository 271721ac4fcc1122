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

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from biascorr_pydra.errors import InvalidParameterError, SegmentationError, UnknownMethodError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.resources import DEVICES

__all__ = ["METHODS", "T1W_LIKE", "BrainMask", "extract_brain", "resolve_method"]

METHODS = ("auto", "deepbet", "template", "given", "none")
#: BIDS suffixes whose gray values are those of a T1w image.
T1W_LIKE = ("T1w", "UNIT1", "MPRAGE", "inplaneT1")

# A brain is neither smaller nor larger than this, so the extraction has failed ...
POSSIBLE_ML = (20.0, 3000.0)
# ... and an adult's brain with its CSF lies between these: outside, a slab, a child, or a mask to look at.
USUAL_ML = (700.0, 2300.0)

WORKING_MM = 2.0  # registration works at about this voxel size
RING_MM = 8  # the dark ring around the template's brain that stands for the skull
SKIN_MM = 12  # from the brain's top to the skin's
HEAD_MM = 90  # the part of a head, from its top, whose middle tells where the brain is
BRAIN_SCALE = 0.92  # of a usual brain's lengths over the template's, which is a large one
START_OFFSETS_MM = (-12, 0, 12)  # heights to start from, as the top of the head may be cut off
LOCAL_MEAN_MM = 25  # sigma of the Gaussian that levels the bias field before registration


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
    img, *, method: str = "auto", mask_file: str | Path | None = None, device: str = "auto", suffix: str | None = None
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
    run, package = {"deepbet": (_deepbet, "deepbet"), "template": (_template, "antspyx")}[chosen]
    # Both methods see the closest RAS+ order of axes, so that the mask does not depend on how the image is stored.
    turn = io_orientation(img.affine)
    affine = img.affine @ inv_ornt_aff(turn, data.shape)
    mask = run(apply_orientation(data, turn), affine, device, img.get_filename())
    mask = np.ascontiguousarray(apply_orientation(mask, ornt_transform(axcodes2ornt("RAS"), turn)))
    volume = _volume_ml(mask, img)
    record = {
        "method": chosen,
        "volume_ml": round(volume, 1),
        "mask_file": None,
        "resampled": False,
        "warnings": _check_volume(volume, chosen, img.get_filename()),
        "software": {package: version(package)},
    }
    return BrainMask(mask, chosen, record)


def _given(img, mask_file) -> BrainMask:
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


def _volume_ml(mask: np.ndarray, img) -> float:
    return float(mask.sum() * abs(np.linalg.det(img.affine[:3, :3])) / 1000)


def _check_volume(volume: float, method: str, name) -> list[str]:
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


# --- deepbet


@lru_cache(maxsize=2)
def _deepbet_model(no_gpu: bool):
    from deepbet.bet import BrainExtraction

    return BrainExtraction(no_gpu=no_gpu)


def _deepbet(data: np.ndarray, affine: np.ndarray, device: str, name) -> np.ndarray:
    """Brain mask of an array in RAS+ order; deepbet works on voxels alone."""
    import torch

    if device not in DEVICES or (device == "cuda" and not torch.cuda.is_available()):
        raise InvalidParameterError(
            "no such device is available", file=name, value=repr(device), next_step="Choose device 'cpu' or 'auto'."
        )
    model = _deepbet_model(device == "cpu")
    try:
        mask = model.postprocess(model.run_model(data.astype(np.float32)) > 0.5)
    except (AssertionError, ValueError) as error:  # what deepbet raises where its first network sees no brain
        raise SegmentationError(
            "brain extraction by 'deepbet' found no brain",
            file=name,
            value=str(error),
            next_step="It is made for T1w images of heads: try method 'template', or give a mask.",
        ) from error
    return np.asarray(mask, bool)


# --- template


@dataclass(frozen=True)
class _Template:
    """The MNI152 brain at the working resolution, in scanner-like RAS+ coordinates (mm)."""

    labels: np.ndarray  # 0 outside, 1 CSF, 2 GM, 3 WM, smoothed
    brain: np.ndarray
    near: np.ndarray  # the brain and a ring around it
    affine: np.ndarray


@lru_cache(maxsize=1)
def _load_template() -> _Template:
    from nilearn import datasets

    loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    images = [load(resolution=1) for load in loaders]
    step, pad = int(WORKING_MM), 14
    full, gm, wm = (np.pad(np.asarray(img.dataobj, np.float32), pad) for img in images)
    brain = ndimage.binary_fill_holes(full > 0)
    # The average of 152 brains is blurred, its rim gray; the fourth power makes most voxels one tissue again.
    parts = [np.clip(part, 0, 1) ** 4 for part in (1 - gm - wm, gm, wm)]
    labels = sum(label * part for label, part in enumerate(parts, 1)) / np.maximum(sum(parts), 1e-9) * brain
    labels = ndimage.gaussian_filter(labels, 0.4 * step)[::step, ::step, ::step]
    brain = brain[::step, ::step, ::step]
    near = ndimage.distance_transform_edt(~brain) * step <= RING_MM
    affine = images[0].affine @ np.diag([step, step, step, 1.0])
    affine[:3, 3] = images[0].affine[:3, 3] - pad
    return _Template(labels, brain, near, affine)


def _template(data: np.ndarray, affine: np.ndarray, device: str, name) -> np.ndarray:
    """Brain mask of an array in RAS+ order, by registration to the MNI152 template.

    The template has no skull and the scan has one. So mutual information is computed in the template's brain and a ring
    around it only, and the search starts with the tops of the two heads together and a brain of usual size: from a
    larger one, the brain's edge would find the skin's.
    """
    template = _load_template()
    affine = _orthogonal(affine, data.shape)
    small, small_affine = _reduce(data, affine)
    head = detect_head(small)
    top = _top(template.brain, template.affine)
    start = np.diag([BRAIN_SCALE] * 3 + [1.0])
    start[:3, 3] = _top(head, small_affine) - BRAIN_SCALE * top - [0, 0, SKIN_MM]
    starts = np.stack([start + np.outer([0, 0, offset, 0], [0, 0, 0, 1]) for offset in START_OFFSETS_MM])
    with TemporaryDirectory(prefix="biascorr-") as folder:
        np.savez(
            f"{folder}/input.npz",
            labels=template.labels,
            near=template.near,
            template_affine=template.affine,
            scan=_leveled(small, head, small_affine),
            scan_affine=small_affine,
            starts=starts,
        )
        to_scan = _run_registration(folder, name)
    # From the scan's voxels to the template's.
    pull = np.linalg.inv(template.affine) @ np.linalg.inv(to_scan) @ affine
    carried = ndimage.affine_transform(template.brain.astype(np.float32), pull, output_shape=data.shape, order=1)
    return carried > 0.5


def _run_registration(folder: str, name) -> np.ndarray:
    program = Path(__file__).with_name("register.py")
    run = subprocess.run(
        [sys.executable, "-P", str(program), folder],
        env={**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "TMPDIR": folder},
        capture_output=True,
        text=True,
    )
    result = Path(folder, "affine.npy")
    if run.returncode or not result.is_file():
        said = (run.stderr.strip() or run.stdout.strip() or f"exit status {run.returncode}").splitlines()[-1]
        raise SegmentationError(
            "the registration of the template failed",
            file=name,
            value=said,
            next_step="Check the image's orientation and voxel size, try another method, or give a mask.",
        )
    return np.load(result)


def _reduce(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every n-th voxel, after smoothing, so that voxels come near the working size; and the affine of what is left."""
    steps = [max(1, int(WORKING_MM / size)) for size in np.linalg.norm(affine[:3, :3], axis=0)]
    smooth = ndimage.gaussian_filter(data, [0.4 * step if step > 1 else 0 for step in steps])
    return smooth[tuple(slice(None, None, step) for step in steps)], affine @ np.diag([*steps, 1.0])


def _top(head: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """World coordinates of a head's upper end: its height, and the middle of its upper part seen from above."""
    points = np.argwhere(head) @ affine[:3, :3].T + affine[:3, 3]
    height = np.percentile(points[:, 2], 99.8)
    upper = points[points[:, 2] > height - HEAD_MM, :2]
    return np.array([*(upper.min(0) + upper.max(0)) / 2, height])


def _leveled(data: np.ndarray, head: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The head divided by its local mean: a strong bias field would lead the registration astray."""
    sigma = LOCAL_MEAN_MM / np.linalg.norm(affine[:3, :3], axis=0)
    clipped = np.clip(data, 0, np.percentile(data[head], 99)) * head
    total, weight = (ndimage.gaussian_filter(a.astype(np.float32), sigma, truncate=2.5) for a in (clipped, head))
    local_mean = np.maximum(total, 1e-6 * total.max()) / np.maximum(weight, 1e-3)
    return clipped / local_mean


def _orthogonal(affine: np.ndarray, shape) -> np.ndarray:
    """The nearest affine without shear, about the image's centre: ITK wants one; the registration finds the shear."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, vt = np.linalg.svd(affine[:3, :3] / sizes)
    straight = np.eye(4)
    straight[:3, :3] = u @ vt * sizes
    centre = (np.array(shape) - 1) / 2
    straight[:3, 3] = affine[:3, 3] + (affine[:3, :3] - straight[:3, :3]) @ centre
    return straight
