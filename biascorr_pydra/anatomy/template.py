"""The brain by affine registration of the MNI152 template; see the module `brain`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy import ndimage

from biascorr_pydra.errors import SegmentationError
from biascorr_pydra.images.head import detect_head

__all__ = ["find_brain"]

WORKING_MM = 2.0  # registration works at about this voxel size
RING_MM = 8  # the dark ring around the template's brain that stands for the skull
SKIN_MM = 12  # from the brain's top to the skin's
HEAD_MM = 90  # the part of a head, from its top, whose middle tells where the brain is
BRAIN_SCALE = 0.92  # of a usual brain's lengths over the template's, which is a large one
START_OFFSETS_MM = (-12, 0, 12)  # heights to start from, as the top of the head may be cut off
LOCAL_MEAN_MM = 25  # sigma of the Gaussian that levels the bias field before registration


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


def find_brain(data: np.ndarray, affine: np.ndarray, *, name: str | None = None) -> np.ndarray:
    """Brain mask of an array in RAS+ order, by registration to the MNI152 template.

    The template has no skull and the scan has one. So mutual information is computed in the template's brain and a ring
    around it only, and the search starts with the tops of the two heads together and a brain of usual size: from a
    larger one, the brain's edge would find the skin's.

    Parameters
    ----------
    data : array (I, J, K), finite
    affine : array (4, 4)
        From voxels to scanner-like RAS+ coordinates in mm.
    name : str, optional
        The image's, for messages.

    Returns
    -------
    mask : boolean array (I, J, K)

    Raises
    ------
    SegmentationError
        The registration failed.
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


def _run_registration(folder: str, name: str | None) -> np.ndarray:
    program = Path(__file__).with_name("register.py")
    run = subprocess.run(
        [sys.executable, "-P", str(program), folder],
        env={**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "TMPDIR": folder},
        capture_output=True,
        text=True,
    )
    result = Path(folder, "affine.npy")
    if run.returncode or not result.is_file():
        reason = (run.stderr.strip() or run.stdout.strip() or f"exit status {run.returncode}").splitlines()[-1]
        raise SegmentationError(
            "the registration of the template failed",
            file=name,
            value=reason,
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


def _orthogonal(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The nearest affine without shear, about the image's centre: ITK wants one; the registration finds the shear."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, vt = np.linalg.svd(affine[:3, :3] / sizes)
    straight = np.eye(4)
    straight[:3, :3] = u @ vt * sizes
    centre = (np.array(shape) - 1) / 2
    straight[:3, 3] = affine[:3, 3] + (affine[:3, :3] - straight[:3, :3]) @ centre
    return straight
