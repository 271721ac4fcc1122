"""Histogram of an image's normalized intensities, from which sites are compared later without opening an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .base import UndefinedMetricError, values_in

__all__ = ["HISTOGRAM_BINS", "HISTOGRAM_RANGE", "normalized_histogram", "normalized_histograms"]

#: Equal bins over multiples of the median; the first and the last also hold what lies beyond.
HISTOGRAM_BINS = 128
HISTOGRAM_RANGE = (0.0, 4.0)


def normalized_histogram(data: np.ndarray, mask: np.ndarray) -> list[int]:
    """Voxel counts of intensities divided by their median in the mask.

    The median takes the scanner's arbitrary scale out and nothing else: what is left of a difference between two images
    is in contrast, bias field and noise.

    Parameters
    ----------
    data : array (I, J, K)
        Intensities; those that are not finite are left out.
    mask : boolean array, same shape

    Returns
    -------
    list of int
        ``HISTOGRAM_BINS`` counts over ``HISTOGRAM_RANGE``, in units of the median.

    Raises
    ------
    UndefinedMetricError
        There are too few voxels, or their median is not above 0.
    """
    values = values_in(data, mask, "the mask")
    middle = float(np.median(values))
    if not middle > 0:
        raise UndefinedMetricError("intensities are divided by their median, which is above 0", value=middle)
    inside = np.clip(values / middle, *HISTOGRAM_RANGE)
    return np.histogram(inside, HISTOGRAM_BINS, HISTOGRAM_RANGE)[0].tolist()


def normalized_histograms(images: Mapping[str, np.ndarray], mask: np.ndarray) -> tuple[dict[str, Any], dict[str, str]]:
    """The histogram of each image by its name, with their "range", as records keep them.

    Parameters
    ----------
    images : name -> array (I, J, K)
    mask : boolean array, same shape

    Returns
    -------
    histograms : "range", and for each name its counts, or None where it is undefined
    undefined : name -> why
    """
    histograms: dict[str, Any] = {"range": list(HISTOGRAM_RANGE)}
    undefined = {}
    for name, data in images.items():
        try:
            histograms[name] = normalized_histogram(data, mask)
        except UndefinedMetricError as reason:
            histograms[name], undefined[name] = None, str(reason)
    return histograms, undefined
