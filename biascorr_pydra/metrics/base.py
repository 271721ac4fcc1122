"""What the metrics share: values in a mask, a weighted median, and how an undefined one is told."""

from __future__ import annotations

import numpy as np

from biascorr_pydra.errors import BiasCorrError

__all__ = ["UndefinedMetricError", "values_in", "weighted_median"]

MIN_VOXELS = 10


class UndefinedMetricError(BiasCorrError, ValueError):
    """The metric has no value for these data; the message is the reason."""


def values_in(data: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """The finite values in a mask, float64; ``name`` is for the message that there are too few."""
    values = np.asarray(data, np.float64)[np.asarray(mask, bool)]
    values = values[np.isfinite(values)]
    if values.size < MIN_VOXELS:
        raise UndefinedMetricError(f"{name} has fewer than {MIN_VOXELS} voxels", value=int(values.size))
    return values


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value at half of the weights; the mean of two where half falls between them.

    Examples
    --------
    >>> weighted_median(np.array([1.0, 2.0, 10.0]), np.array([1.0, 1.0, 3.0]))
    10.0
    """
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(weights[order])
    half = below[-1] / 2
    i = int(np.searchsorted(below, half))
    if below[i] == half and i + 1 < values.size:
        return float((values[i] + values[i + 1]) / 2)
    return float(values[i])
