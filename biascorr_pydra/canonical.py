"""Move arrays and fields between an image's native grid and a canonical one: RAS+ order, a fixed number of samples.

First and last samples of the two grids coincide on every axis, so that a B-spline lattice spanning one spans the other.
"""

from __future__ import annotations

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from .field import LogBiasSpline

__all__ = ["from_canonical", "spline_from_canonical", "to_canonical"]


def to_canonical(data: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Resample an array to RAS+ axis order and ``shape`` samples over the same field of view.

    First and last samples coincide with the first and last voxels of each axis, so that a B-spline lattice spanning one
    grid spans the other. Linear, with a triangle as wide as the down-sampling against aliasing.
    """
    oriented = apply_orientation(data, io_orientation(affine)).astype(np.float32)
    return _resampled(oriented, shape)


def from_canonical(data: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Resample an array on the canonical grid to the native one of ``shape`` and ``affine``.

    Undoes :func:`to_canonical`. Float32, linear; exact where both grids have the same number of samples.
    """
    ornt = io_orientation(affine)
    back = ornt_transform(axcodes2ornt("RAS"), ornt)
    oriented = [0, 0, 0]
    for axis, (world, _) in enumerate(ornt):
        oriented[int(world)] = shape[axis]
    return np.ascontiguousarray(apply_orientation(_resampled(np.asarray(data, np.float32), oriented), back))


def _resampled(data: np.ndarray, shape) -> np.ndarray:
    for n, m in zip(data.shape, shape, strict=True):
        # The axis leaves the front and joins the back. Of as many samples as wanted it needs no product.
        same = n == m
        data = np.moveaxis(data, 0, -1) if same else np.tensordot(data, _resampling(n, m).T, axes=([0], [0]))
    return np.ascontiguousarray(data)


def _resampling(n: int, m: int) -> np.ndarray:
    """(m, n) matrix of triangle weights that takes n samples to m over the same extent, ends included."""
    positions = np.linspace(0, n - 1, m)
    width = max(1.0, (n - 1) / max(m - 1, 1))
    weights = np.clip(1 - np.abs(positions[:, None] - np.arange(n)[None]) / width, 0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def spline_from_canonical(spline: LogBiasSpline, affine: np.ndarray, shape) -> LogBiasSpline:
    """Express a spline that spans the canonical grid on the native grid of ``shape`` and ``affine``."""
    back = ornt_transform(axcodes2ornt("RAS"), io_orientation(affine))
    return LogBiasSpline.spanning(apply_orientation(spline.control_points, back), shape)
