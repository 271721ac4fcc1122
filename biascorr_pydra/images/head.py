"""Where the head is in an image: a rough foreground, for where no mask is given."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from biascorr_pydra.errors import InvalidImageError

__all__ = ["closed", "detect_head"]


def detect_head(data: np.ndarray) -> np.ndarray:
    """Rough foreground of a scan: the largest piece above half of Otsu's threshold (Otsu 1979), closed and filled.

    Used to scale the field where no mask is given. Worked out on every n-th voxel of axes longer than 128 voxels: its
    border is as coarse as that. ``data`` is (I, J, K); returns a boolean array, never empty.

    Raises
    ------
    InvalidImageError
        No voxel is positive.
    """
    if not (data > 0).any():
        raise InvalidImageError(
            "there is no head to detect without a positive voxel",
            value=f"values from {data.min():g} to {data.max():g}" if data.size else f"an array of shape {data.shape}",
            next_step="Check that the image was written whole.",
        )
    steps = [max(1, round(n / 128)) for n in data.shape]
    small = np.ascontiguousarray(data[tuple(slice(None, None, step) for step in steps)])
    # Otsu splits bright tissue from the rest when there is no background; half of it keeps dark tissue in.
    head = small > _otsu(small if (small > 0).any() else data) / 2
    labels, n = ndimage.label(head)
    if n > 1:
        head = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    head = ndimage.binary_fill_holes(closed(head, 2) | head)
    for axis, step in enumerate(steps):
        head = np.repeat(head, step, axis) if step > 1 else head
    head = head[tuple(slice(n) for n in data.shape)]
    return head if head.any() else data > 0


def closed(mask: np.ndarray, iterations: int) -> np.ndarray:
    """``ndimage.binary_closing`` with its own cross and so many iterations, in a seventh of its time."""
    grown = np.pad(mask, 1)
    for _ in range(iterations):
        grown = _joined_with_neighbours(grown, np.logical_or)
    for _ in range(iterations):
        grown = _joined_with_neighbours(grown, np.logical_and)
    return grown[1:-1, 1:-1, 1:-1]


def _joined_with_neighbours(mask: np.ndarray, operation: np.ufunc) -> np.ndarray:
    """Each voxel and its six neighbours by OR or AND; the outermost voxels stay False."""
    result = mask.copy()
    for axis in range(3):
        result_along, along = np.moveaxis(result, axis, 0), np.moveaxis(mask, axis, 0)
        operation(result_along[1:], along[:-1], out=result_along[1:])
        operation(result_along[:-1], along[1:], out=result_along[:-1])
    for axis in range(3):
        np.moveaxis(result, axis, 0)[[0, -1]] = False
    return result


def _otsu(data: np.ndarray) -> float:
    """The threshold that best splits the positive values into two classes."""
    positive = data[data > 0]
    counts, edges = np.histogram(np.minimum(positive, np.percentile(positive, 99.5)), 256)
    centers = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(centers[np.argmax(np.nan_to_num(np.where(above > 0, between, -1), nan=-1))])
