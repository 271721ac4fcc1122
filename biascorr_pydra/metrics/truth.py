"""Images, masks and intensity distributions compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from .base import UndefinedMetricError, values_in, weighted_median
from .registry import DICE, HUTTENLOCHER, LIN, SIMKO, metric

__all__ = ["dice", "jsd", "mean_hausdorff", "relative_mae"]


@metric(
    "relative_mae",
    group="comparison",
    direction="lower",
    reference=SIMKO,
    definition=(
        "mean |s x_hat - x| / mean |x| over the mask; x is the truth, s minimizes it (L1) or the squared error (L2)"
    ),
)
def relative_mae(data: np.ndarray, truth: np.ndarray, mask: np.ndarray, *, scale: str = "L1") -> float:
    """mean |s data - truth| / mean |truth| over the mask; lower is better.

    ``scale`` says which s: 'L1' minimizes this very error (a weighted median), 'L2' the squared error, 'none' is 1.
    """
    x_hat, x = values_in(data, mask, "the mask"), values_in(truth, mask, "the mask")
    if x_hat.size != x.size:
        raise UndefinedMetricError("the images are not finite at the same voxels")
    if not x.any() or not x_hat.any():
        raise UndefinedMetricError("an image is 0 all over the mask")
    factors: dict[str, Callable[[], float]] = {
        "L1": lambda: weighted_median(x[x_hat != 0] / x_hat[x_hat != 0], np.abs(x_hat[x_hat != 0])),
        "L2": lambda: float((x_hat * x).sum() / (x_hat**2).sum()),
        "none": lambda: 1.0,
    }
    return float(np.abs(factors[scale]() * x_hat - x).mean() / np.abs(x).mean())


@metric(
    "dice",
    group="comparison",
    direction="higher",
    reference=DICE,
    definition="2 |A and B| / (|A| + |B|) of two masks",
)
def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap 2 |A and B| / (|A| + |B|) of two masks; higher is better.

    Examples
    --------
    >>> dice(np.array([1, 1, 0], bool), np.array([0, 1, 1], bool))
    0.5
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    total = int(a.sum()) + int(b.sum())
    if total == 0:
        raise UndefinedMetricError("both masks are empty")
    return float(2 * np.logical_and(a, b).sum() / total)


@metric(
    "mean_hausdorff",
    group="comparison",
    direction="lower",
    reference=HUTTENLOCHER,
    unit="mm",
    definition=(
        "Mean of the two directed Hausdorff distances between the surfaces of two masks: half of the largest distance "
        "from a surface voxel of A to the surface of B, plus half of that from B to A. Not the modified Hausdorff "
        "distance, which has means for maxima"
    ),
)
def mean_hausdorff(a: np.ndarray, b: np.ndarray, *, voxel_size_mm: Sequence[float]) -> float:
    """Mean of the two directed Hausdorff distances between the surfaces of two masks, in mm; lower is better.

    A surface is the voxels of a mask that touch a voxel outside it by a face, or the border of the array; distances are
    between voxel centres. It is not the modified Hausdorff distance, which has means in place of the maxima.

    Parameters
    ----------
    a, b : boolean arrays, one shape
    voxel_size_mm : one size for each axis

    Raises
    ------
    UndefinedMetricError
        A mask is empty.
    """
    a, b = (_surface(mask) for mask in (a, b))
    return float((_directed(a, b, voxel_size_mm) + _directed(b, a, voxel_size_mm)) / 2)


def _surface(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask, bool)
    if not mask.any():
        raise UndefinedMetricError("a mask is empty")
    return mask & ~ndimage.binary_erosion(mask)


def _directed(a: np.ndarray, b: np.ndarray, voxel_size_mm: Sequence[float]) -> float:
    """The largest distance from a voxel of ``a`` to the nearest of ``b``."""
    return ndimage.distance_transform_edt(~b, sampling=tuple(voxel_size_mm))[a].max()


@metric(
    "jsd",
    group="comparison",
    direction="lower",
    reference=LIN,
    definition=(
        "Jensen-Shannon divergence of K intensity distributions: mean over i of KL(p_i || mean of the p), natural "
        "logarithm; 0 when all are the same, ln K when none overlap"
    ),
)
def jsd(distributions: np.ndarray) -> float:
    """Jensen-Shannon divergence of K distributions, natural logarithm; 0 (all the same) to ln K, lower is better.

    scipy's ``jensenshannon`` is the square root of this, for two distributions.

    Parameters
    ----------
    distributions : array, shape (K, bins)
        Histograms over the same bins, as counts or probabilities: each is divided by its sum.

    Raises
    ------
    UndefinedMetricError
        There are fewer than two, or one has a negative or no count.
    """
    p = np.asarray(distributions, np.float64)
    if p.ndim != 2 or p.shape[0] < 2:
        raise UndefinedMetricError("at least two distributions are compared", value=f"shape {p.shape}")
    sums = p.sum(axis=1, keepdims=True)
    if not np.isfinite(p).all() or (p < 0).any() or not (sums > 0).all():
        raise UndefinedMetricError("a distribution has counts of 0 or more, not all 0")
    p = p / sums
    mean = np.broadcast_to(p.mean(axis=0), p.shape)
    positive = p > 0  # 0 log 0 is 0
    return float((p[positive] * np.log(p[positive] / mean[positive])).sum() / len(p))
