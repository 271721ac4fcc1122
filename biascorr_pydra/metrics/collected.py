"""All metrics of a group at once; what is undefined is None, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .base import UndefinedMetricError
from .registry import in_group

__all__ = ["field_metrics", "field_scores", "image_metrics", "undefined_image_metrics"]


def _collect(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of a group by name, None where undefined, and the reasons under 'undefined'.

    A metric that needs what is not known here, such as air, is left out.
    """
    collected: dict[str, Any] = {}
    undefined: dict[str, str] = {}
    for entry in in_group(group):
        if not set(entry.needs) <= set(values):
            continue
        try:
            collected[entry.name] = entry.of(values)
        except UndefinedMetricError as reason:
            collected[entry.name], undefined[entry.name] = None, str(reason)
    collected["undefined"] = undefined
    return collected


def image_metrics(
    data: np.ndarray,
    gm: np.ndarray,
    wm: np.ndarray,
    *,
    voxel_size_mm: Sequence[float],
    gm_probability: np.ndarray | None = None,
    wm_probability: np.ndarray | None = None,
    air: np.ndarray | None = None,
) -> dict[str, Any]:
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
    values = {
        "data": data,
        "gm": gm,
        "wm": wm,
        "voxel_size_mm": voxel_size_mm,
        "gm_probability": gm if gm_probability is None else gm_probability,
        "wm_probability": wm if wm_probability is None else wm_probability,
    }
    return _collect("image", values if air is None else values | {"air": air})


def undefined_image_metrics(reason: str) -> dict[str, Any]:
    """What :func:`image_metrics` gives, air not being known, where nothing is known of the tissues either."""
    names = [entry.name for entry in in_group("image") if "air" not in entry.needs]
    return {**dict.fromkeys(names), "undefined": dict.fromkeys(names, reason)}


def field_metrics(bias: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """The metrics of a field alone: of a linear one, over the mask; 'undefined' as above."""
    return _collect("field", {"bias": bias, "mask": mask})


def field_scores(bias: np.ndarray, true_bias: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """The scale-free scores of a linear field against the true one; 'undefined' as above."""
    values = {"bias": bias, "true_bias": true_bias, "mask": mask}
    with np.errstate(divide="ignore", invalid="ignore"):
        values |= {"log_bias": np.log(bias), "true_log_bias": np.log(true_bias)}
    return _collect("score", values)
