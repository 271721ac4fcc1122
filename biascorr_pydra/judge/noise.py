"""How sure the judge's numbers are: resampled over blocks of tissue, since neighbouring voxels share one field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biascorr_pydra.metrics import DSEG_LABELS

__all__ = ["BLOCK_MM", "CONFIDENCE", "Blocks", "interval"]

BLOCK_MM = 16.0
RESAMPLES = 400
CONFIDENCE = 0.95
#: Log intensities are counted in bins over this range about the tissue's median.
HALF_RANGE, BINS = 1.0, 1000


@dataclass(frozen=True)
class Blocks:
    """Blocks of a tissue, and how often each is drawn in each resample; one for all images on that tissue.

    Attributes
    ----------
    of_voxels : tissue ("GM", "WM") -> block of each of its voxels, in their order in the array
    draws : array (RESAMPLES, blocks)
    """

    of_voxels: Mapping[str, np.ndarray]
    draws: np.ndarray

    @classmethod
    def of(cls, tissue: np.ndarray, voxel_size_mm: Sequence[float], *, seed: int) -> Blocks:
        """Blocks of BLOCK_MM of an array (I, J, K) of 1 GM, 2 WM, of voxels of this size; the draws are seeded."""
        where = np.nonzero(tissue)
        blocks, labels = _numbered(where, voxel_size_mm), tissue[where]
        n = int(blocks.max()) + 1
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float32)
        return cls({name: blocks[labels == DSEG_LABELS[name]] for name in ("GM", "WM")}, draws)

    def resampled(self, logs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Unevenness of an image in each resample, (RESAMPLES,).

        Parameters
        ----------
        logs : tissue -> smoothed log intensities of its voxels, as :func:`biascorr_pydra.metrics.smoothed_log` gives
        """
        medians, spreads = zip(
            *(_quantiles(logs[name], self.of_voxels[name], self.draws) for name in logs), strict=True
        )
        return sum(spreads) / np.sqrt(np.maximum(np.abs(medians[1] - medians[0]), 1e-6))


def interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Percentile interval of the change in percent from the first image's resamples to the second's."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(100 * (second / first - 1), (tail, 100 - tail))
    return float(low), float(high)


def _numbered(where: tuple[np.ndarray, ...], voxel_size_mm: Sequence[float]) -> np.ndarray:
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
