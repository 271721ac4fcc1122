"""The judge's tissue: white and gray matter that the segmentations of several images agree on, without the borders.

No compared method made it, and it follows no method's field: a voxel counts only where every image calls it the same,
and its neighbours too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biascorr_pydra.metrics import DSEG_LABELS

from .classes import neighbours

__all__ = ["GRID_MM", "Grid", "consensus"]

#: Voxel size to which images are averaged, in mm: finer ones up to it, coarser ones stay.
GRID_MM = 2.0
#: Face neighbours that must be of the same tissue for a voxel to stay; cortex is thin.
KEPT_NEIGHBOURS = {"WM": 6, "GM": 4}
MOST_OUTSIDE = 0.5


@dataclass(frozen=True)
class Grid:
    """A coarse grid: blocks of ``factors`` voxels of an image, within the box of its mask.

    Attributes
    ----------
    factors : voxels of a block along each axis
    box : slices of the image that the blocks divide, padded at the end where they do not fit
    shape : of the coarse grid
    inside : boolean array of that shape; blocks of which at least half is in the mask
    voxel_size_mm : of a block
    """

    factors: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    shape: tuple[int, int, int]
    inside: np.ndarray
    voxel_size_mm: tuple[float, float, float]
    mask: np.ndarray

    @classmethod
    def over(cls, mask: np.ndarray, voxel_size_mm: Sequence[float]) -> Grid:
        """The grid for a boolean mask (I, J, K), not empty, of voxels of this size."""
        factors = tuple(max(1, round(GRID_MM / size)) for size in voxel_size_mm)
        axes = [np.flatnonzero(mask.any(tuple(k for k in range(3) if k != axis))) for axis in range(3)]
        box = tuple(slice(int(axis[0]), int(axis[-1]) + 1) for axis in axes)
        cut = _padded(mask[box].astype(np.float32), factors)
        share = _block_means(cut, factors)
        size = tuple(factor * float(mm) for factor, mm in zip(factors, voxel_size_mm, strict=True))
        return cls(factors, box, share.shape, share >= 1 - MOST_OUTSIDE, size, mask)  # type: ignore[arg-type]

    def mean(self, data: np.ndarray) -> np.ndarray:
        """Means over the mask's voxels of each block, float32; 0 where there are none, or a value is not finite."""
        mask = self.mask[self.box] & np.isfinite(data[self.box])
        values = _padded(np.where(mask, data[self.box], 0).astype(np.float32), self.factors)
        counted = _block_means(_padded(mask.astype(np.float32), self.factors), self.factors)
        return np.divide(
            _block_means(values, self.factors), counted, out=np.zeros(self.shape, np.float32), where=counted > 0
        )

    def affine(self, affine: np.ndarray) -> np.ndarray:
        """The coarse grid's affine, from the image's (4, 4)."""
        step = np.diag([*self.factors, 1.0])
        step[:3, 3] = [cut.start + (factor - 1) / 2 for cut, factor in zip(self.box, self.factors, strict=True)]
        return affine @ step


def _padded(values: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    return np.pad(values, [(0, -size % factor) for size, factor in zip(values.shape, factors, strict=True)])


def _block_means(values: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    split = [part for size, factor in zip(values.shape, factors, strict=True) for part in (size // factor, factor)]
    return values.reshape(split).mean((1, 3, 5))


def consensus(segmented: Sequence[np.ndarray], order: Sequence[str]) -> np.ndarray:
    """Tissue that all segmentations agree on, without its borders.

    Parameters
    ----------
    segmented : arrays (I, J, K) as :func:`.classes.three_tissues` gives them
    order : tissues from the darkest to the brightest, see :mod:`biascorr_pydra.anatomy.contrast`

    Returns
    -------
    int8 array, same shape: 1 GM, 2 WM, 0 elsewhere
    """
    dseg = np.zeros(segmented[0].shape, np.int8)
    for tissue, least in KEPT_NEIGHBOURS.items():
        agreed = np.all([classes == order.index(tissue) + 1 for classes in segmented], axis=0)
        dseg[agreed & (neighbours(agreed.astype(np.int8)) >= least)] = DSEG_LABELS[tissue]
    return dseg
