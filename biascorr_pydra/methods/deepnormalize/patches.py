"""Whole images through a network that sees patches: overlapping patches, and the average over those at each voxel.

References
----------
Delisle et al. Medical Image Analysis, 2022, section 2.3: patches of 32 samples with stride 8, class probabilities
averaged over the patches that contain a voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np

__all__ = ["average_over_patches", "starts"]


def starts(extent: int, size: int, stride: int) -> list[int]:
    """First samples of the patches along one axis: every ``stride`` samples, and the last that still fits.

    Raises
    ------
    ValueError
        The axis is shorter than a patch, or the stride is not from 1 to ``size``: samples would be missed.
    """
    if extent < size or not 1 <= stride <= size:
        raise ValueError(f"patches of {size} samples every {stride} over {extent}")
    indices = list(range(0, extent - size + 1, stride))
    return indices if indices[-1] == extent - size else [*indices, extent - size]


def average_over_patches(
    image: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
    outputs: int,
    *,
    size: int = 32,
    stride: int = 8,
    batch: int = 16,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Apply a function to overlapping patches, and average what it gives at each voxel.

    Patches without a voxel other than 0 are left out: there the average is 0. What is held beside image and result is
    one batch, and the sums over ``size`` planes, whatever the image's size.

    Parameters
    ----------
    image : float32 array (C, I, J, K)
        0 outside the brain; no axis shorter than ``size``.
    function : callable
        Patches (B, C, size, size, size) to (B, outputs, size, size, size), float32.
    outputs : int
    size, stride : int
        Samples per axis of a patch, and from one to the next.
    batch : int
        Patches at once; on a GPU, more.
    progress : callable, optional
        Of the share that is done.

    Returns
    -------
    float32 array (outputs, I, J, K)

    Raises
    ------
    ValueError
        As :func:`starts`.
    """
    across = image.shape[2:]
    firsts = [starts(extent, size, stride) for extent in image.shape[1:]]
    inside = (image != 0).any(0)
    result = np.zeros((outputs, *image.shape[1:]), np.float32)
    sums, counts = np.zeros((outputs, size, *across), np.float32), np.zeros((size, *across), np.float32)
    begin = 0  # the plane of the image that is the first in the sums
    for number, i in enumerate(firsts[0]):
        _take_out(result, sums, counts, begin, i - begin)
        begin = i
        slab, inside_slab = image[:, i : i + size], inside[i : i + size]
        for places in _batches(inside_slab, firsts[1], firsts[2], size, batch):
            given = np.stack([slab[:, :, j : j + size, k : k + size] for j, k in places])
            for (j, k), values in zip(places, function(given), strict=True):
                sums[:, :, j : j + size, k : k + size] += values
                counts[:, j : j + size, k : k + size] += 1
        if progress:
            progress((number + 1) / len(firsts[0]))
    _take_out(result, sums, counts, begin, size)
    return result


def _batches(inside: np.ndarray, first: list[int], second: list[int], size: int, batch: int) -> Iterator[list]:
    plane = cast(np.ndarray, inside.any(0))
    places = [(j, k) for j in first for k in second if plane[j : j + size, k : k + size].any()]
    for start in range(0, len(places), batch):
        yield places[start : start + batch]


def _take_out(result: np.ndarray, sums: np.ndarray, counts: np.ndarray, begin: int, planes: int) -> None:
    """Write averages of the first planes, which no later patch reaches, and move the others up."""
    if not planes:
        return
    result[:, begin : begin + planes] = sums[:, :planes] / np.maximum(counts[:planes], 1)
    for array, axis in ((sums, 1), (counts, 0)):
        moved = np.moveaxis(array, axis, 0)
        rest = moved[planes:].copy()
        moved[: len(rest)] = rest
        moved[len(rest) :] = 0
