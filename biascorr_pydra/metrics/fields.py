"""Metrics of a field, and its scores against the true one."""

from __future__ import annotations

import numpy as np

from .base import UndefinedMetricError, values_in
from .tissues import cv

__all__ = ["field_correlation", "inu_range", "log_field_rmse", "residual_cov", "response_slope"]


def inu_range(bias: np.ndarray, mask: np.ndarray) -> float:
    """|95th - 5th percentile| of the bias field over the mask (mean 1 there)."""
    low, high = np.percentile(values_in(bias, mask, "the mask"), (5, 95))
    return float(abs(high - low))


def residual_cov(bias: np.ndarray, true_bias: np.ndarray, mask: np.ndarray) -> float:
    """Coefficient of variation over the mask of estimated field / true field; lower is better.

    Both fields are linear and positive; any factor between them cancels.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return cv(np.asarray(bias, np.float64) / true_bias, mask)


def _centered(log_bias, true_log_bias, mask) -> tuple[np.ndarray, np.ndarray]:
    estimate, truth = values_in(log_bias, mask, "the mask"), values_in(true_log_bias, mask, "the mask")
    if estimate.size != truth.size:
        raise UndefinedMetricError("the fields are not finite at the same voxels")
    return estimate - estimate.mean(), truth - truth.mean()


def log_field_rmse(log_bias: np.ndarray, true_log_bias: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square difference of two log fields over the mask, each without its mean there; lower is better."""
    estimate, truth = _centered(log_bias, true_log_bias, mask)
    return float(np.sqrt(np.mean((estimate - truth) ** 2)))


def field_correlation(log_bias: np.ndarray, true_log_bias: np.ndarray, mask: np.ndarray) -> float:
    """Pearson's r of two log fields over the mask; higher is better, but see :func:`response_slope`."""
    estimate, truth = _centered(log_bias, true_log_bias, mask)
    scale = np.sqrt((estimate**2).sum() * (truth**2).sum())
    if scale == 0:
        raise UndefinedMetricError("one of the fields is constant over the mask")
    return float((estimate * truth).sum() / scale)


def response_slope(log_bias: np.ndarray, true_log_bias: np.ndarray, mask: np.ndarray) -> float:
    """Least-squares slope of log estimate on log truth over the mask; 1 is best, 0 means nothing was corrected."""
    estimate, truth = _centered(log_bias, true_log_bias, mask)
    if not truth.any():
        raise UndefinedMetricError("the true field is constant over the mask")
    return float((estimate * truth).sum() / (truth**2).sum())
