"""One scan measured before and after its correction, on the tissues that were segmented in the corrected image.

What a user of that one method will see downstream; no number to compare methods by, for each is measured on tissue of
its own. The judge (:mod:`biascorr_pydra.judge`) compares.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biascorr_pydra.images import nifti
from biascorr_pydra.images.files import write_text
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.metrics import (
    field_metrics,
    image_metrics,
    normalized_histograms,
    tissue_masks,
    undefined_image_metrics,
)

__all__ = ["measure", "measure_file"]


def measure(
    acquired: np.ndarray,
    corrected: np.ndarray,
    bias: np.ndarray,
    mask: np.ndarray,
    dseg: np.ndarray | None,
    voxel_size_mm: Sequence[float],
    *,
    no_dseg_reason: str = "no tissue segmentation",
) -> dict[str, Any]:
    """Metrics of one scan before and after correction, and of its field.

    Parameters
    ----------
    acquired, corrected, bias : float arrays, shape (I, J, K)
    mask : boolean array, same shape
        Where the field is summarised, and whose intensities are counted.
    dseg : array, same shape, or None
        1 GM, 2 WM, 3 CSF: the tissues of the corrected image, or given ones. They score both images.
    voxel_size_mm : three floats
    no_dseg_reason : str
        Why tissue metrics are undefined where there is no segmentation.

    Returns
    -------
    dict
        "own_before" and "own_after" (metric -> value or None), "field", "histogram" ("range" in units of the image's
        median in the mask, and counts "before" and "after"), and "undefined" ("own_before.cjv" -> reason).
    """
    images = {"own_before": acquired, "own_after": corrected}
    parts = {"field": field_metrics(bias, mask)}
    if dseg is None:
        parts |= {part: undefined_image_metrics(no_dseg_reason) for part in images}
    else:
        tissues = tissue_masks(dseg)
        for part, data in images.items():
            parts[part] = image_metrics(data, tissues["GM"], tissues["WM"], voxel_size_mm=voxel_size_mm)
    undefined = {
        f"{part}.{name}": reason for part, values in parts.items() for name, reason in values.pop("undefined").items()
    }
    histogram, reasons = normalized_histograms({"before": acquired, "after": corrected}, mask)
    undefined |= {f"histogram.{name}": reason for name, reason in reasons.items()}
    return {
        "own_before": parts["own_before"],
        "own_after": parts["own_after"],
        "field": parts["field"],
        "histogram": histogram,
        "undefined": undefined,
    }


def measure_file(
    in_file: str | Path,
    out_file: str | Path,
    bias_file: str | Path,
    folder: str | Path,
    *,
    mask_file: str | Path | None = None,
    dseg_file: str | Path | None = None,
    no_dseg_reason: str = "no tissue segmentation was given",
) -> Path:
    """Measure an image before and after correction, and its field; returns the metrics' JSON file.

    Parameters
    ----------
    in_file, out_file : the acquired and the corrected image
    bias_file : the field that was divided out
    folder : where metrics.json goes, in the place of an earlier run's
    mask_file : brain mask; the detected head by default
    dseg_file : 1 GM, 2 WM, 3 CSF
    no_dseg_reason : why there is no segmentation, if there is none

    Raises
    ------
    BiasCorrError
        One of its leaves; nothing is written then.
    """
    before = nifti.load(in_file)
    data, valid, _ = nifti.inspect(before)
    mask = nifti.load_mask(mask_file, before)[0] if mask_file else detect_head(data)
    dseg = None if dseg_file is None else nifti.load(dseg_file).get_fdata().reshape(data.shape)
    corrected = nifti.load(out_file).get_fdata(dtype="float32").reshape(data.shape)
    bias = nifti.load(bias_file).get_fdata(dtype="float32").reshape(data.shape)
    measured = measure(
        data, corrected, bias, mask & valid, dseg, nifti.voxel_size_mm(before), no_dseg_reason=no_dseg_reason
    )
    metrics_file = Path(folder) / "metrics.json"
    write_text(metrics_file, json.dumps(measured, indent=2, default=str))
    return metrics_file
