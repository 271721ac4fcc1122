"""Move arrays and fields between an image's native grid and a canonical one: RAS+ order, a fixed number of samples.

First and last samples of the two grids coincide on every axis, so that a B-spline lattice spanning one spans the other.
"""

from __future__ import annotations

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from .field import LogBiasSpline

__all__ = ["crop", "from_canonical", "spline_from_canonical", "to_canonical", "uncrop"]


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
    return _weights(n, np.linspace(0, n - 1, m))


def _weights(n: int, positions: np.ndarray) -> np.ndarray:
    """(m, n) matrix that takes n samples to m evenly spaced positions, by triangles as wide as these are apart."""
    distance = (positions[-1] - positions[0]) / max(positions.size - 1, 1)
    weights = np.clip(1 - np.abs(positions[:, None] - np.arange(n)[None]) / max(1.0, distance), 0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def crop(data: np.ndarray, first, last, shape: tuple[int, int, int]) -> np.ndarray:
    """Resample a box of an array to ``shape`` samples, the outer ones at voxel indices ``first`` and ``last``."""
    data = np.asarray(data, np.float32)
    for n, m, begin, end in zip(data.shape, shape, first, last, strict=True):
        data = np.tensordot(data, _weights(n, np.linspace(begin, end, m)).T, axes=([0], [0]))
    return np.ascontiguousarray(data)


def uncrop(mask: np.ndarray, first, last, shape: tuple[int, int, int]) -> np.ndarray:
    """Put a mask over the box of :func:`crop` back on the grid of ``shape``: nearest samples, False outside the box."""
    inside, samples = [], []
    for n, m, begin, end in zip(shape, mask.shape, first, last, strict=True):
        places = np.rint((np.arange(n) - begin) * ((m - 1) / (end - begin))).astype(int)
        inside.append((places >= 0) & (places < m))
        samples.append(places[inside[-1]])
    result = np.zeros(shape, bool)
    result[np.ix_(*inside)] = mask[np.ix_(*samples)]
    return result


def spline_from_canonical(
    spline: LogBiasSpline, affine: np.ndarray, shape, grid_shape: tuple[int, int, int] | None = None
) -> LogBiasSpline:
    """Express a spline over the canonical grid on the native grid of ``shape`` and ``affine``.

    Without ``grid_shape``, that of the canonical grid, the spline is one that spans it.
    """
    ornt = io_orientation(affine)
    control_points = apply_orientation(spline.control_points, ornt_transform(axcodes2ornt("RAS"), ornt))
    if grid_shape is None:
        return LogBiasSpline.spanning(control_points, shape)
    first, last = [], []
    for n, (world, direction) in zip(shape, ornt, strict=True):
        ends = [end[int(world)] / (grid_shape[int(world)] - 1) for end in (spline.first, spline.last)]
        begin, end = ends if direction > 0 else (1 - ends[1], 1 - ends[0])
        first.append(begin * (n - 1))
        last.append(end * (n - 1))
    return LogBiasSpline(control_points, tuple(first), tuple(last))
