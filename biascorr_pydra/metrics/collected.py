"""Several metrics at once; what is undefined is None, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .base import UndefinedMetricError, values_in
from .fields import field_correlation, inu_range, log_field_rmse, residual_cov, response_slope
from .tissues import cjv, cjv_mriqc, cjv_smoothed, cnr, cv, wm2max, wm_gm_contrast

__all__ = ["field_metrics", "field_scores", "image_metrics"]


def _collect(functions: dict[str, Callable[[], float]]) -> dict:
    """Values by name, None where undefined, and the reasons under 'undefined'."""
    values: dict = {}
    undefined: dict[str, str] = {}
    for name, function in functions.items():
        try:
            values[name] = function()
        except UndefinedMetricError as reason:
            values[name], undefined[name] = None, str(reason)
    values["undefined"] = undefined
    return values


def image_metrics(
    data: np.ndarray,
    gm: np.ndarray,
    wm: np.ndarray,
    *,
    voxel_size_mm: Sequence[float],
    gm_probability: np.ndarray | None = None,
    wm_probability: np.ndarray | None = None,
    air: np.ndarray | None = None,
) -> dict:
    """The metrics of one image that need no truth.

    Parameters
    ----------
    data : array (I, J, K)
        Acquired or corrected intensities.
    gm, wm : boolean arrays, same shape
    voxel_size_mm : three floats
    gm_probability, wm_probability : arrays, same shape, optional
        For ``cjv_mriqc``; the masks stand in.
    air : boolean array, same shape, optional
        Adds ``cnr``.

    Returns
    -------
    dict
        Metric name -> float, or None where it has no value; and 'undefined': metric name -> reason.
    """
    functions = {
        "cjv": lambda: cjv(data, gm, wm),
        "cjv_mriqc": lambda: cjv_mriqc(
            data, gm if gm_probability is None else gm_probability, wm if wm_probability is None else wm_probability
        ),
        "cjv_smoothed": lambda: cjv_smoothed(data, gm, wm, voxel_size_mm=voxel_size_mm),
        "cv_wm": lambda: cv(data, wm, "white matter"),
        "cv_gm": lambda: cv(data, gm, "gray matter"),
        "wm_gm_contrast": lambda: wm_gm_contrast(data, gm, wm),
        "wm2max": lambda: wm2max(data, wm),
    }
    if air is not None:
        functions["cnr"] = lambda: cnr(data, gm, wm, air)
    return _collect(functions)


def field_metrics(bias: np.ndarray, mask: np.ndarray) -> dict:
    """inu_range, inu_med, field_min and field_max of a linear field over the mask; 'undefined' as above."""
    return _collect(
        {
            "inu_range": lambda: inu_range(bias, mask),
            "inu_med": lambda: float(np.median(values_in(bias, mask, "the mask"))),
            "field_min": lambda: float(values_in(bias, mask, "the mask").min()),
            "field_max": lambda: float(values_in(bias, mask, "the mask").max()),
        }
    )


def field_scores(bias: np.ndarray, true_bias: np.ndarray, mask: np.ndarray) -> dict:
    """The four scale-free scores of a linear field against the true one; 'undefined' as above."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(bias), np.log(true_bias)
    return _collect(
        {
            "residual_cov": lambda: residual_cov(bias, true_bias, mask),
            "log_field_rmse": lambda: log_field_rmse(*logs, mask),
            "field_correlation": lambda: field_correlation(*logs, mask),
            "response_slope": lambda: response_slope(*logs, mask),
        }
    )
