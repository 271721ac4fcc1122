"""Metrics of a field, and its scores against the true one."""

from __future__ import annotations

import numpy as np

from .base import UndefinedMetricError, values_in
from .registry import CHUA, HERE, MRIQC, metric
from .tissues import cv

__all__ = [
    "field_correlation",
    "field_max",
    "field_min",
    "inu_med",
    "inu_range",
    "log_field_rmse",
    "residual_cov",
    "response_slope",
]


@metric(
    "inu_range",
    group="field",
    direction="none",
    reference=MRIQC,
    label="Field range (P95 − P5)",
    definition="|95th - 5th percentile| of the bias field over the mask, the field having mean 1 there",
    shown=True,
    judged=("field",),
)
def inu_range(bias: np.ndarray, mask: np.ndarray) -> float:
    """|95th - 5th percentile| of the bias field over the mask (mean 1 there)."""
    low, high = np.percentile(values_in(bias, mask, "the mask"), (5, 95))
    return float(abs(high - low))


@metric(
    "inu_med",
    group="field",
    direction="none",
    reference=MRIQC,
    label="Field median",
    definition="Median of the bias field over the mask, the field having mean 1 there",
    shown=True,
)
def inu_med(bias: np.ndarray, mask: np.ndarray) -> float:
    """Median of the bias field over the mask (mean 1 there)."""
    return float(np.median(values_in(bias, mask, "the mask")))


@metric(
    "field_min",
    group="field",
    direction="none",
    reference=HERE,
    label="Field minimum",
    definition="Smallest value of the bias field over the mask",
    shown=True,
)
def field_min(bias: np.ndarray, mask: np.ndarray) -> float:
    """Smallest value of the bias field over the mask."""
    return float(values_in(bias, mask, "the mask").min())


@metric(
    "field_max",
    group="field",
    direction="none",
    reference=HERE,
    label="Field maximum",
    definition="Largest value of the bias field over the mask",
    shown=True,
)
def field_max(bias: np.ndarray, mask: np.ndarray) -> float:
    """Largest value of the bias field over the mask."""
    return float(values_in(bias, mask, "the mask").max())


@metric(
    "residual_cov",
    group="score",
    direction="lower",
    reference=CHUA,
    definition="Standard deviation / mean over the mask of estimated field / true field; 0 when only a factor differs",
    compared=True,
    bench="residual_cov",
    bench_text="std/mean over the brain of estimated / true field; 0 is best",
)
def residual_cov(bias: np.ndarray, true_bias: np.ndarray, mask: np.ndarray) -> float:
    """Coefficient of variation over the mask of estimated field / true field; lower is better.

    Both fields are linear and positive; any factor between them cancels.

    Examples
    --------
    Two thirds of the mask are 10% too bright after correction; a factor common to all voxels does not count:

    >>> bias, true_bias = np.repeat([2.2, 2.2, 2.0], 10), np.ones(30)
    >>> round(residual_cov(bias, true_bias, np.ones(30, bool)), 4)
    0.0442
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return cv(np.asarray(bias, np.float64) / true_bias, mask)


def _centered(log_bias, true_log_bias, mask) -> tuple[np.ndarray, np.ndarray]:
    estimate, truth = values_in(log_bias, mask, "the mask"), values_in(true_log_bias, mask, "the mask")
    if estimate.size != truth.size:
        raise UndefinedMetricError("the fields are not finite at the same voxels")
    return estimate - estimate.mean(), truth - truth.mean()


@metric(
    "log_field_rmse",
    group="score",
    direction="lower",
    reference=HERE,
    definition="Root mean square over the mask of log estimate - log truth, after each lost its mean there",
    compared=True,
    bench="log_rmse",
    bench_text="root mean square error of the log field over the brain, its mean apart; 0 is best",
)
def log_field_rmse(log_bias: np.ndarray, true_log_bias: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square difference of two log fields over the mask, each without its mean there; lower is better."""
    estimate, truth = _centered(log_bias, true_log_bias, mask)
    return float(np.sqrt(np.mean((estimate - truth) ** 2)))


@metric(
    "field_correlation",
    group="score",
    direction="higher",
    reference=HERE,
    definition=(
        "Pearson's r of log estimate and log truth over the mask; blind to a correction that is too weak, so read it "
        "next to response_slope"
    ),
)
def field_correlation(log_bias: np.ndarray, true_log_bias: np.ndarray, mask: np.ndarray) -> float:
    """Pearson's r of two log fields over the mask; higher is better, but see :func:`response_slope`."""
    estimate, truth = _centered(log_bias, true_log_bias, mask)
    scale = np.sqrt((estimate**2).sum() * (truth**2).sum())
    if scale == 0:
        raise UndefinedMetricError("one of the fields is constant over the mask")
    return float((estimate * truth).sum() / scale)


@metric(
    "response_slope",
    group="score",
    direction="one",
    reference=HERE,
    definition=(
        "Least-squares slope of log estimate on log truth over the mask: the fraction of the true field that was found"
    ),
)
def response_slope(log_bias: np.ndarray, true_log_bias: np.ndarray, mask: np.ndarray) -> float:
    """Least-squares slope of log estimate on log truth over the mask; 1 is best, 0 means nothing was corrected."""
    estimate, truth = _centered(log_bias, true_log_bias, mask)
    if not truth.any():
        raise UndefinedMetricError("the true field is constant over the mask")
    return float((estimate * truth).sum() / (truth**2).sum())
