"""How far intensities spread within a tissue, in the logarithm, where a field adds and a scale does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import UndefinedMetricError
from .registry import HERE, metric
from .tissues import MAD_TO_SIGMA, smoothed_inside

__all__ = ["FWHM_MM", "smoothed_log", "tissue_spread", "tissue_spread_to_contrast"]

#: Smoothing inside each tissue. A field is smooth and noise is not: what is left of both is mostly the field.
FWHM_MM = 6.0


@metric(
    "tissue_spread",
    group="image",
    direction="lower",
    reference=HERE,
    label="Spread within tissue",
    definition=(
        f"1.4826 MAD of the log intensity in white matter plus the same in gray matter, each smoothed ({FWHM_MM:g} mm "
        "FWHM) inside its mask"
    ),
)
def tissue_spread(data: np.ndarray, gm: np.ndarray, wm: np.ndarray, *, voxel_size_mm: Sequence[float]) -> float:
    """Robust standard deviation of the smoothed log intensity in white matter plus that in gray matter; lower is better.

    Parameters
    ----------
    data : array (I, J, K)
        Intensities; those that are not positive are left out.
    gm, wm : boolean arrays, same shape
    voxel_size_mm : three floats

    Raises
    ------
    UndefinedMetricError
        A mask is nearly empty.
    """
    _, spread_gm = center_and_spread(smoothed_log(data, gm, voxel_size_mm, "gray matter"))
    _, spread_wm = center_and_spread(smoothed_log(data, wm, voxel_size_mm, "white matter"))
    return float(spread_gm + spread_wm)


@metric(
    "tissue_spread_to_contrast",
    group="image",
    direction="lower",
    reference=HERE,
    label="Spread within tissue relative to contrast",
    definition="tissue_spread over |median ln I of white matter - median ln I of gray matter|, both smoothed",
)
def tissue_spread_to_contrast(
    data: np.ndarray, gm: np.ndarray, wm: np.ndarray, *, voxel_size_mm: Sequence[float]
) -> float:
    """:func:`tissue_spread` over the distance of the tissues' median log intensities; lower is better.

    Raises
    ------
    UndefinedMetricError
        A mask is nearly empty, or both medians are equal.
    """
    median_gm, spread_gm = center_and_spread(smoothed_log(data, gm, voxel_size_mm, "gray matter"))
    median_wm, spread_wm = center_and_spread(smoothed_log(data, wm, voxel_size_mm, "white matter"))
    if median_gm == median_wm:
        raise UndefinedMetricError("white and gray matter have the same intensity", value=f"{np.exp(median_wm):g}")
    return float((spread_gm + spread_wm) / abs(median_wm - median_gm))


def smoothed_log(data: np.ndarray, mask: np.ndarray, voxel_size_mm: Sequence[float], name: str) -> np.ndarray:
    """Log intensities of the mask's voxels, in their order in the array, smoothed inside the mask; (n,).

    ``name`` is for the message of an :class:`UndefinedMetricError`. Voxels that are not positive are left out.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(np.asarray(data) > 0, np.log(data), np.nan)
    return smoothed_inside(log, mask, FWHM_MM, voxel_size_mm, name)


def center_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Median, and 1.4826 MAD about it."""
    median = float(np.median(values))
    return median, MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
