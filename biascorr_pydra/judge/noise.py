"""How sure the judge's numbers are: resampled over blocks of tissue, since neighbouring voxels share one field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from biascorr_pydra.metrics import DSEG_LABELS, smoothed_log

__all__ = ["BLOCK_MM", "CONFIDENCE", "interval", "resampled"]

BLOCK_MM = 16.0
RESAMPLES = 400
CONFIDENCE = 0.95
#: Log intensities are counted in bins over this range about the tissue's median.
HALF_RANGE, BINS = 1.0, 1000


def resampled(data: np.ndarray, tissue: np.ndarray, voxel_size_mm: Sequence[float], *, seed: int) -> np.ndarray:
    """:func:`biascorr_pydra.metrics.tissue_unevenness` of an image over resampled blocks of its tissue, (RESAMPLES,).

    Of two images on one tissue, with one seed, the same blocks are drawn: their quotient is that of paired resamples.

    Parameters
    ----------
    data : float array (I, J, K), positive where there is tissue
    tissue : int array, same shape, 1 GM, 2 WM
    voxel_size_mm : three floats
    seed : of the draws
    """
    blocks = np.zeros(tissue.shape, int)
    blocks[tissue > 0] = _blocks(np.nonzero(tissue), voxel_size_mm)
    n = int(blocks.max()) + 1
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float32)
    medians, spreads = [], []
    for name in ("GM", "WM"):
        mask = tissue == DSEG_LABELS[name]
        median, spread = _quantiles(smoothed_log(data, mask, voxel_size_mm, name), blocks[mask], draws)
        medians.append(median)
        spreads.append(spread)
    return (spreads[0] + spreads[1]) / np.sqrt(np.maximum(np.abs(medians[1] - medians[0]), 1e-6))


def interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Percentile interval of the change in percent from the first image's resamples to the second's."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(100 * (second / first - 1), (tail, 100 - tail))
    return float(low), float(high)


def _blocks(where: tuple[np.ndarray, ...], voxel_size_mm: Sequence[float]) -> np.ndarray:
    """The block of each voxel, numbered from 0 without gaps."""
    index = [(axis * size // BLOCK_MM).astype(int) for axis, size in zip(where, voxel_size_mm, strict=True)]
    sizes = [int(axis.max()) + 1 for axis in index]
    return np.unique(np.ravel_multi_index(index, sizes), return_inverse=True)[1]


def _quantiles(values: np.ndarray, blocks: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and 1.4826 MAD of a tissue in each resample, from counts by block: no voxel is sorted twice."""
    center = np.median(values)
    bins = np.clip(((values - center + HALF_RANGE) * (BINS / (2 * HALF_RANGE))).astype(int), 0, BINS - 1)
    counts = np.bincount(blocks * BINS + bins, minlength=draws.shape[1] * BINS).reshape(-1, BINS)
    below = np.cumsum(draws @ counts.astype(np.float32), axis=1)
    # a resample without any voxel of the tissue has no quantiles; it counts as the tissue itself
    below = np.where(below[:, -1:] > 0, below, np.cumsum(counts.sum(0)))
    below = np.concatenate([np.zeros((len(below), 1)), below], axis=1) / below[:, -1:]
    edges = np.linspace(-HALF_RANGE, HALF_RANGE, BINS + 1)
    medians = np.array([np.interp(0.5, row, edges) for row in below])
    distances = np.linspace(0, HALF_RANGE, BINS // 2 + 1)
    mads = [
        np.interp(0.5, np.interp(m + distances, edges, row) - np.interp(m - distances, edges, row), distances)
        for m, row in zip(medians, below, strict=True)
    ]
    return center + medians, 1.482602218505602 * np.array(mads)
