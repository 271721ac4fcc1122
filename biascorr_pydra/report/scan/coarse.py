"""The judge's tissue lies on a coarse grid: its labels at the voxels of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from biascorr_pydra.errors import GridMismatchError

__all__ = ["labels_on"]

#: Voxels of the coarse grid by which an axis may be askew over its whole length.
ASKEW = 0.05


def labels_on(labels: np.ndarray, coarse: np.ndarray, shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Labels of the coarse voxel in which each voxel of an image lies; 0 beyond the coarse grid.

    Parameters
    ----------
    labels : int array (I, J, K)
    coarse : its affine (4, 4), along the same axes as the image's
    shape, affine : of the image

    Returns
    -------
    int array of that shape

    Raises
    ------
    GridMismatchError
        The axes of the two grids are not the same.
    """
    step = np.linalg.inv(coarse) @ affine
    askew = step[:3, :3] - np.diag(np.diag(step[:3, :3]))
    if (np.abs(askew) * np.asarray(shape)).max() > ASKEW or (np.diag(step[:3, :3]) <= 0).any():
        raise GridMismatchError("the judge's tissue does not lie along the axes of the scan's images")
    inside, places = [], []
    for axis in range(3):
        # Half a voxel is rounded up, whatever the rounding of the affine's numbers.
        at = np.floor(step[axis, axis] * np.arange(shape[axis]) + step[axis, 3] + 0.5 + 1e-4).astype(int)
        inside.append((at >= 0) & (at < labels.shape[axis]))
        places.append(np.clip(at, 0, labels.shape[axis] - 1))
    taken = labels[np.ix_(*places)]
    for axis, known in enumerate(inside):
        taken[tuple(slice(None) if k != axis else ~known for k in range(3))] = 0
    return taken
