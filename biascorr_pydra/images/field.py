"""Bias-field algebra: the cubic B-spline basis, its lattice, exact refinement, closed-form fitting and scaling.

A field is kept as the control points of its logarithm on a uniform cubic B-spline lattice. Cubic B-splines on a
regular grid separate by axis, so evaluating and fitting are small matrix products, and one lattice found at low
resolution gives the field on the full grid without resampling an image.

References
----------
Lee, Wolberg, Shin. Scattered data interpolation with multilevel B-splines. IEEE TVCG 3(3), 1997.
Tustison et al. N4ITK: improved N3 bias correction. IEEE TMI 29(6), 2010. doi:10.1109/TMI.2010.2046908
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LogBiasSpline", "bspline_basis", "contract", "evaluate", "evaluate_tensor", "fit", "mean_one", "refine"]

DEGREE = 3


def bspline_basis(positions: np.ndarray, n_control_points: int, *, first: float, last: float) -> np.ndarray:
    """Cubic B-spline basis functions at given positions.

    Parameters
    ----------
    positions : array, shape (n,)
        Where to evaluate, in any unit, usually voxel indices.
    n_control_points : int
        Control points on this axis, at least 4; the mesh has ``n_control_points - 3`` spans.
    first, last : float
        Positions of the two ends of the mesh. Positions outside are held at the nearest end.

    Returns
    -------
    array, shape (n, n_control_points), float64. Each row has four non-zero entries that sum to 1.

    Examples
    --------
    At the end of a mesh of one span, three of the four basis functions are not zero:

    >>> bspline_basis([0.0], 4, first=0, last=10).round(3).tolist()
    [[0.167, 0.667, 0.167, 0.0]]
    """
    spans = n_control_points - DEGREE
    if spans < 1:
        raise ValueError(f"a cubic B-spline needs at least 4 control points per axis, not {n_control_points}")
    extent = last - first
    t = (np.asarray(positions, float) - first) / (extent if extent else 1.0) * spans
    t = np.clip(t, 0, spans)
    i = np.minimum(t.astype(int), spans - 1)
    u = t - i
    weights = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1) / 6
    basis = np.zeros((t.size, n_control_points))
    rows = np.arange(t.size)
    for k in range(DEGREE + 1):
        basis[rows, i + k] = weights[:, k]
    return basis


def contract(array: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Contract each axis of a 3-D array with the first axis of its matrix: a separable tensor product.

    ``array`` is (a, b, c), the matrices (a, i), (b, j), (c, k); the result is (i, j, k).
    """
    for matrix in matrices:
        # The contracted axis leaves the front and its replacement joins the back: after three turns the order is right.
        array = np.tensordot(array, matrix, axes=([0], [0]))
    return array


def evaluate(control_points: np.ndarray, bases: Sequence[np.ndarray]) -> np.ndarray:
    """Evaluate a lattice (i, j, k) at the samples of three basis matrices (a, i), (b, j), (c, k): (a, b, c)."""
    return contract(control_points, [basis.T for basis in bases])


def evaluate_tensor(control_points, bases):
    """:func:`evaluate` for torch tensors with leading batch axes; differentiable, on the tensors' device.

    ``control_points`` is (..., i, j, k), the bases (a, i), (b, j), (c, k); the result is (..., a, b, c).
    """
    first, second, third = bases
    values = second @ (control_points @ third.mT)
    sizes = values.shape[-2:]
    return (first @ values.flatten(-2)).unflatten(-1, sizes)


def refine(control_points: np.ndarray) -> np.ndarray:
    """Return the same spline on a mesh with twice as many spans per axis (exact cubic knot insertion)."""
    for axis in range(control_points.ndim):
        coarse = np.moveaxis(control_points, axis, 0)
        n = 2 * (coarse.shape[0] - DEGREE) + DEGREE
        fine = np.empty((n, *coarse.shape[1:]), coarse.dtype)
        j = np.arange(n)
        even, odd = j[::2], j[1::2]
        fine[::2] = (coarse[even // 2] + coarse[even // 2 + 1]) / 2
        k = (odd + 1) // 2
        fine[1::2] = (coarse[k - 1] + 6 * coarse[k] + coarse[k + 1]) / 8
        control_points = np.moveaxis(fine, 0, axis)
    return np.ascontiguousarray(control_points)


def fit(values: np.ndarray, weights: np.ndarray, bases: Sequence[np.ndarray], *, ridge: float = 1e-6) -> np.ndarray:
    """Weighted least-squares control points of a cubic B-spline lattice, in closed form.

    Parameters
    ----------
    values, weights : array, shape (a, b, c)
        What to fit, and how much each voxel counts (0 leaves it out).
    bases : three arrays (a, i), (b, j), (c, k)
        From :func:`bspline_basis`.
    ridge : float
        Added to the diagonal of the normal equations, relative to the mean weight per control point: it keeps control
        points that no voxel reaches at zero instead of undefined.

    Returns
    -------
    array, shape (i, j, k), float64
    """
    sizes = [basis.shape[1] for basis in bases]
    pairs = [np.einsum("ai,aj->aij", b, b).reshape(b.shape[0], -1) for b in bases]
    gram = contract(np.asarray(weights, float), pairs).reshape(*(n for size in sizes for n in (size, size)))
    count = int(np.prod(sizes))
    gram = gram.transpose(0, 2, 4, 1, 3, 5).reshape(count, count)
    right = contract(np.asarray(weights, float) * np.nan_to_num(values), bases).reshape(count)
    scale = np.trace(gram) / count
    gram[np.diag_indices(count)] += ridge * (scale or 1.0)
    return np.linalg.solve(gram, right).reshape(sizes)


def mean_one(log_bias: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Bias field with mean 1 over ``mask``.

    Parameters
    ----------
    log_bias : array, shape (I, J, K)
    mask : boolean array, same shape

    Returns
    -------
    bias : float32 array, positive, dimensionless
    log_scale : float
        What was subtracted from ``log_bias``.

    Examples
    --------
    >>> bias, log_scale = mean_one(np.log([[[1.0, 3.0]]]), np.ones((1, 1, 2), bool))
    >>> bias.round(6).tolist()
    [[[0.5, 1.5]]]
    """
    log_scale = float(np.log(np.mean(np.exp(log_bias[mask], dtype=np.float64))))
    return np.exp(log_bias - np.float32(log_scale), dtype=np.float32), log_scale


@dataclass(frozen=True)
class LogBiasSpline:
    """A log bias field over a voxel grid, as cubic B-spline control points.

    Attributes
    ----------
    control_points : array, shape (i, j, k)
        Control points of the natural logarithm of the bias.
    first, last : three floats each
        Voxel indices, on the grid the field belongs to, at which the mesh begins and ends on each axis. For a mesh that
        spans the image these are 0 and n - 1.
    """

    control_points: np.ndarray
    first: tuple[float, float, float]
    last: tuple[float, float, float]

    @classmethod
    def spanning(cls, control_points: np.ndarray, shape: Sequence[int]) -> LogBiasSpline:
        """A mesh whose ends are the centres of the first and last voxels of a grid of this shape."""
        i, j, k = shape
        return cls(np.asarray(control_points), (0.0,) * 3, (float(i - 1), float(j - 1), float(k - 1)))

    def on_grid(self, shape: Sequence[int], dtype=np.float32) -> np.ndarray:
        """The log bias at every voxel of a grid of this shape: array (I, J, K)."""
        bases = [
            bspline_basis(np.arange(n), k, first=a, last=b).astype(dtype)
            for n, k, a, b in zip(shape, self.control_points.shape, self.first, self.last, strict=True)
        ]
        return evaluate(self.control_points.astype(dtype), bases)
