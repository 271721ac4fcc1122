"""How far intensities spread within a tissue, in the logarithm, where a field adds and a scale does not."""

from __future__ import annotations

import numpy as np

from .base import UndefinedMetricError, values_in
from .registry import HERE, metric
from .tissues import MAD_TO_SIGMA

__all__ = ["tissue_spread", "tissue_spread_to_contrast"]


@metric(
    "tissue_spread",
    group="image",
    direction="lower",
    reference=HERE,
    label="Spread within tissue",
    definition="1.4826 MAD of the log intensity in white matter plus the same in gray matter",
)
def tissue_spread(data: np.ndarray, gm: np.ndarray, wm: np.ndarray) -> float:
    """Robust standard deviation of the log intensity in white matter plus that in gray matter; lower is better.

    Parameters
    ----------
    data : array (I, J, K)
        Intensities; those that are not positive are left out.
    gm, wm : boolean arrays, same shape

    Raises
    ------
    UndefinedMetricError
        A mask is nearly empty.

    Examples
    --------
    >>> data = np.exp(np.repeat([-0.1, 0.1, 0.9, 1.1], 10))
    >>> round(tissue_spread(data, gm=data < 2, wm=data > 2), 4)
    0.2965
    """
    _, spread_gm = _center_and_spread(data, gm, "gray matter")
    _, spread_wm = _center_and_spread(data, wm, "white matter")
    return spread_gm + spread_wm


@metric(
    "tissue_spread_to_contrast",
    group="image",
    direction="lower",
    reference=HERE,
    label="Spread within tissue relative to contrast",
    definition="tissue_spread over |median ln I of white matter - median ln I of gray matter|",
)
def tissue_spread_to_contrast(data: np.ndarray, gm: np.ndarray, wm: np.ndarray) -> float:
    """:func:`tissue_spread` over the distance of the tissues' median log intensities; lower is better.

    Raises
    ------
    UndefinedMetricError
        A mask is nearly empty, or both medians are equal.
    """
    median_gm, spread_gm = _center_and_spread(data, gm, "gray matter")
    median_wm, spread_wm = _center_and_spread(data, wm, "white matter")
    if median_gm == median_wm:
        raise UndefinedMetricError("white and gray matter have the same intensity", value=f"{np.exp(median_wm):g}")
    return (spread_gm + spread_wm) / abs(median_wm - median_gm)


def _center_and_spread(data: np.ndarray, mask: np.ndarray, name: str) -> tuple[float, float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        values = values_in(np.where(np.asarray(data) > 0, np.log(data), np.nan), mask, name)
    median = float(np.median(values))
    return median, MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
