"""Did it help: one scan measured before and after its correction, on one segmentation and one mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from biascorr_pydra.metrics import (
    HISTOGRAM_RANGE,
    UndefinedMetricError,
    field_metrics,
    image_metrics,
    normalized_histogram,
    tissue_masks,
)

__all__ = ["measure"]


def measure(
    acquired: np.ndarray,
    corrected: np.ndarray,
    bias: np.ndarray,
    mask: np.ndarray,
    dseg: np.ndarray | None,
    voxel_size_mm: Sequence[float],
    *,
    no_dseg_reason: str = "no tissue segmentation",
) -> dict:
    """Metrics of one scan before and after correction, and of its field.

    Parameters
    ----------
    acquired, corrected, bias : float arrays, shape (I, J, K)
    mask : boolean array, same shape
        Where the field is summarised, and whose intensities are counted.
    dseg : array, same shape, or None
        1 GM, 2 WM, 3 CSF. The same segmentation scores both images.
    voxel_size_mm : three floats
    no_dseg_reason : str
        Why tissue metrics are undefined where there is no segmentation.

    Returns
    -------
    dict
        "before" and "after" (metric -> value or None), "field", "histogram" ("range" in units of the image's median in
        the mask, and counts "before" and "after"), and "undefined" ("before.cjv" -> reason).
    """
    parts = {"field": field_metrics(bias, mask)}
    if dseg is not None:
        tissues = tissue_masks(dseg)
        for name, data in (("before", acquired), ("after", corrected)):
            parts[name] = image_metrics(data, tissues["GM"], tissues["WM"], voxel_size_mm=voxel_size_mm)
    undefined = {
        f"{part}.{metric}": reason for part, found in parts.items() for metric, reason in found.pop("undefined").items()
    }
    if dseg is None:
        undefined |= {f"{part}.{metric}": no_dseg_reason for part in ("before", "after") for metric in TISSUE_METRICS}
        parts |= {part: dict.fromkeys(TISSUE_METRICS) for part in ("before", "after")}
    histogram: dict = {"range": list(HISTOGRAM_RANGE)}
    for name, data in (("before", acquired), ("after", corrected)):
        try:
            histogram[name] = normalized_histogram(data, mask)
        except UndefinedMetricError as reason:
            histogram[name], undefined[f"histogram.{name}"] = None, str(reason)
    return {
        "before": parts["before"],
        "after": parts["after"],
        "field": parts["field"],
        "histogram": histogram,
        "undefined": undefined,
    }


TISSUE_METRICS = ("cjv", "cjv_mriqc", "cjv_smoothed", "cv_wm", "cv_gm", "wm_gm_contrast", "wm2max")
