"""The numbers that the gate judges a field by, from a coarse sample of the image and the field.

Everything is seen at about 4 mm: a field is smooth, and there are voxels enough. All
numbers are of the natural logarithm of image and field, so that the scale of either does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["field_numbers"]

SAMPLE_MM = 4.0
FEWEST = 500  # voxels in the region, below which nothing can be said
WANTED = 4000  # below this many, every voxel is looked at
BINS = 128
MANY_LEVELS = 16384
LAG_MM = 12.0  # far enough for a field to change, near enough for tissue to be the same
FLAT = 0.1  # a difference of log intensity that may still be within one tissue
BEND_MM = 16.0


class _Sample(NamedTuple):
    """Log intensity, log field, and where both count: arrays (i, j, k) on a coarse grid of ``step_mm``."""

    log_image: np.ndarray
    log_bias: np.ndarray
    region: np.ndarray
    step_mm: tuple[float, ...]


def field_numbers(
    data: np.ndarray, bias: np.ndarray, region: np.ndarray, voxel_size_mm: Sequence[float], *, rim_mm: float = 0.0
) -> dict[str, float | None] | None:
    """What can be said of a field without knowing the true one, or None where too few voxels are positive.

    Parameters
    ----------
    data : array (I, J, K)
        Acquired intensities.
    bias : array, same shape
        The estimated field, positive; its scale is free.
    region : boolean array, same shape
        The brain mask, or the head.
    voxel_size_mm : three floats
    rim_mm : float
        How much of the region's border to leave out: of a head, scalp and skull.

    Returns
    -------
    dict
        field_sd : standard deviation of the log field
        field_range : 99th over 1st percentile of the field
        gradient_per_mm : 99th percentile of the log field's change per mm along an axis
        curvature : root mean square second difference of the log field over 16 mm along an axis
        sharpening : entropy of the log intensities before minus after, in nats; above 0 the histogram sharpened
        support : how much of the field the image itself shows, see :func:`_support`; None for a constant field
        contrast_change : relative change of the distance between the two main groups of log intensities; None if there
            is no telling
    """
    sample = _sample(data, bias, region, voxel_size_mm, rim_mm)
    inside = sample.region
    if inside.sum() < FEWEST:
        return None
    log_bias = sample.log_bias[inside]
    low, high = np.percentile(log_bias, [1, 99])
    before, after, limits = _before_and_after(sample.log_image[inside], log_bias)
    return {
        "field_sd": float(log_bias.std()),
        "field_range": float(np.exp(high - low)),
        "gradient_per_mm": _gradient(sample),
        "curvature": _curvature(sample),
        "sharpening": _entropy(before, limits) - _entropy(after, limits),
        "support": _support(sample),
        "contrast_change": _contrast_change(before, after, limits),
    }


def _sample(data, bias, region, voxel_size_mm, rim_mm: float) -> _Sample:
    steps = [max(1, round(SAMPLE_MM / size)) for size in voxel_size_mm]
    if region[_every(steps)].sum() < WANTED:
        steps = [1, 1, 1]
    step_mm = tuple(n * mm for n, mm in zip(steps, voxel_size_mm, strict=True))
    inside = _without_rim(np.ascontiguousarray(region[_every(steps)]), rim_mm, step_mm)
    values = _averaged(data, steps)
    inside = inside & (values > 0)
    if inside.any():
        values = values + _dither(values, inside)
    log_image = np.log(np.where(inside & (values > 0), values, 1))
    log_bias = np.log(np.ascontiguousarray(bias[_every(steps)], dtype=np.float32))
    return _Sample(log_image, log_bias, inside & (values > 0), step_mm)


def _every(steps: Sequence[int], starts: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...]:
    return tuple(slice(start, None, step) for start, step in zip(starts, steps, strict=True))


def _averaged(data: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Every n-th voxel averaged with its next neighbours, 2 x 2 x 2 where there are so many: less noise."""
    shape = data[_every(steps)].shape
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for starts in np.ndindex(*(min(step, 2) for step in steps)):
        part = data[_every(steps, starts)]
        here = tuple(slice(n) for n in part.shape)
        total[here] += part
        count[here] += 1
    return total / count


def _without_rim(region: np.ndarray, rim_mm: float, step_mm: Sequence[float]) -> np.ndarray:
    """The region without what is nearer to its border than ``rim_mm`` along an axis; all of it if little is left."""
    inner = region
    for axis, step in enumerate(step_mm):
        for _ in range(round(rim_mm / step)):
            shrunk = inner.copy()
            one, other = _neighbours(axis, 1)
            shrunk[one] &= inner[other]
            shrunk[other] &= inner[one]
            inner = shrunk
    return inner if inner.sum() >= FEWEST else region


def _dither(values: np.ndarray, inside: np.ndarray) -> np.ndarray | float:
    """Uniform noise as wide as the step between the image's grey levels, where there are few.

    Whole numbers crowd into few bins of a histogram, and dividing them by any field spreads them: without this, a
    correction would seem to blur.
    """
    levels = np.unique(values[inside])
    if not 1 < levels.size < MANY_LEVELS:
        return 0.0
    width = float(np.median(np.diff(levels)))
    return np.random.default_rng(0).uniform(-width / 2, width / 2, values.shape).astype(np.float32)


def _before_and_after(log_image: np.ndarray, log_bias: np.ndarray):
    """Log intensities before and after, of one median, clipped to one range, and that range."""
    low, high = np.percentile(log_image, [1, 99])
    corrected = log_image - log_bias
    corrected += np.median(log_image) - np.median(corrected)
    limits = float(low) - 0.1, float(high) + 0.1
    return np.clip(log_image, *limits), np.clip(corrected, *limits), limits


def _histogram(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    index = ((values - limits[0]) * (BINS / (limits[1] - limits[0]))).astype(np.intp)
    return np.bincount(np.minimum(index, BINS - 1), minlength=BINS)


def _entropy(values: np.ndarray, limits: tuple[float, float]) -> float:
    share = _histogram(values, limits) / values.size
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def _contrast_change(before: np.ndarray, after: np.ndarray, limits: tuple[float, float]) -> float | None:
    """Relative change of the distance between the means of two groups of voxels, the same before and after.

    Otsu's threshold on the corrected values parts them (Otsu 1979): on the acquired ones, the field itself would help
    to part them, and its removal would seem to take contrast away.
    """
    counts = _histogram(after, limits)
    centers = limits[0] + (np.arange(BINS) + 0.5) * (limits[1] - limits[0]) / BINS
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * centers)[:-1]
    above = after.size - below
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = ((counts * centers).sum() - sums) / above - sums / below
        between = np.where((below > 0) & (above > 0), below * above * gap**2, -1)
    best = int(np.argmax(between))
    bright = after >= limits[0] + (best + 1) * (limits[1] - limits[0]) / BINS
    if bright.all() or not bright.any():
        return None
    gaps = [float(values[bright].mean() - values[~bright].mean()) for values in (before, after)]
    return gaps[1] / gaps[0] - 1 if gaps[0] > 0 else None


def _neighbours(axis: int, lag: int):
    """Indices of voxels, and of their neighbours ``lag`` voxels before them on an axis."""
    after, before = [slice(None)] * 3, [slice(None)] * 3
    after[axis], before[axis] = slice(lag, None), slice(None, -lag)
    return tuple(after), tuple(before)


def _lags(sample: _Sample, distance_mm: float):
    """Axes that are long enough, each with its lag in voxels and in mm."""
    for axis, step in enumerate(sample.step_mm):
        lag = max(1, round(distance_mm / step))
        if sample.region.shape[axis] > 2 * lag:
            yield axis, lag, lag * step


def _support(sample: _Sample) -> float | None:
    """Slope of the image's change on the field's change, between voxels 12 mm apart that look like one tissue.

    Within one tissue log intensity changes as the true log field does, whatever the tissue. The slope that leaves the
    least absolute change (a weighted median) is near 1 for the true field, 0 for one that has nothing to do with the
    image, 1/2 for twice the true field: below 1/2 a correction adds more than it takes away. Pairs are chosen by their
    distance from half of the field's change, so that neither 0 nor 1 is favoured.
    """
    slopes, weights = [], []
    for axis, lag, _ in _lags(sample, LAG_MM):
        one, other = _neighbours(axis, lag)
        both = sample.region[one] & sample.region[other]
        image = (sample.log_image[one] - sample.log_image[other])[both]
        field = (sample.log_bias[one] - sample.log_bias[other])[both]
        flat = (np.abs(image - field / 2) < FLAT) & (field != 0)
        slopes.append(image[flat] / field[flat])
        weights.append(np.abs(field[flat]))
    slope, weight = (np.concatenate(parts) if parts else np.empty(0) for parts in (slopes, weights))
    if slope.size < FEWEST:
        return None
    order = np.argsort(slope)
    total = np.cumsum(weight[order], dtype=np.float64)
    return float(slope[order][np.searchsorted(total, total[-1] / 2)])


def _gradient(sample: _Sample) -> float:
    parts = []
    for axis, lag, distance in _lags(sample, SAMPLE_MM):
        one, other = _neighbours(axis, lag)
        both = sample.region[one] & sample.region[other]
        parts.append(np.abs(sample.log_bias[one] - sample.log_bias[other])[both] / distance)
    gradients = np.concatenate(parts) if parts else np.empty(0)
    return float(np.percentile(gradients, 99)) if gradients.size else 0.0


def _curvature(sample: _Sample) -> float:
    total, count = 0.0, 0
    for axis, lag, _ in _lags(sample, BEND_MM):
        one, other = _neighbours(axis, lag)
        slope, inside = sample.log_bias[one] - sample.log_bias[other], sample.region[one] & sample.region[other]
        one, other = _neighbours(axis, lag)
        bend = (slope[one] - slope[other])[inside[one] & inside[other]]
        total, count = total + float((bend.astype(np.float64) ** 2).sum()), count + bend.size
    return (total / count) ** 0.5 if count else 0.0
