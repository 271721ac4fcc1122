"""How far intensities spread within a tissue, in the logarithm, where a field adds and a scale does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import UndefinedMetricError
from .registry import HERE, metric
from .tissues import MAD_TO_SIGMA, smoothed_inside

__all__ = ["FWHM_MM", "smoothed_log", "tissue_unevenness", "unevenness"]

#: Smoothing inside each tissue. A field is smooth and noise is not: what is left of both is mostly the field.
FWHM_MM = 4.0


@metric(
    "tissue_unevenness",
    group="image",
    direction="lower",
    reference=HERE,
    label="Unevenness of tissue",
    definition=(
        "(s_WM + s_GM) / sqrt(|m_WM - m_GM|): s is 1.4826 MAD and m the median of a tissue's log intensity, smoothed "
        f"({FWHM_MM:g} mm FWHM) inside its mask"
    ),
)
def tissue_unevenness(data: np.ndarray, gm: np.ndarray, wm: np.ndarray, *, voxel_size_mm: Sequence[float]) -> float:
    """Spread of log intensities within white and gray matter over the root of their contrast; lower is better.

    Halfway between the spread alone, which a correction that flattens contrast lowers, and the spread relative to the
    contrast, which one that raises contrast lowers: their geometric mean.

    Parameters
    ----------
    data : array (I, J, K)
        Intensities; those that are not positive are left out.
    gm, wm : boolean arrays, same shape
    voxel_size_mm : three floats

    Raises
    ------
    UndefinedMetricError
        A mask is nearly empty, or both medians are equal.
    """
    log_gm = smoothed_log(data, gm, voxel_size_mm, "gray matter")
    return unevenness(log_gm, smoothed_log(data, wm, voxel_size_mm, "white matter"))


def unevenness(log_gm: np.ndarray, log_wm: np.ndarray) -> float:
    """:func:`tissue_unevenness` of smoothed log intensities (n,) of gray and of white matter.

    Raises
    ------
    UndefinedMetricError
        Both medians are equal.
    """
    (median_gm, spread_gm), (median_wm, spread_wm) = _center_and_spread(log_gm), _center_and_spread(log_wm)
    if median_gm == median_wm:
        raise UndefinedMetricError("white and gray matter have the same intensity", value=f"{np.exp(median_wm):g}")
    return float((spread_gm + spread_wm) / np.sqrt(abs(median_wm - median_gm)))


def smoothed_log(data: np.ndarray, mask: np.ndarray, voxel_size_mm: Sequence[float], name: str) -> np.ndarray:
    """Log intensities of the mask's voxels, in their order in the array, smoothed inside the mask; (n,).

    ``name`` is for the message of an :class:`UndefinedMetricError`. Voxels that are not positive are left out.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(np.asarray(data) > 0, np.log(data), np.nan)
    return smoothed_inside(log, mask, FWHM_MM, voxel_size_mm, name)


def _center_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Median, and 1.4826 MAD about it."""
    median = float(np.median(values))
    return median, MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
