"""How sure the judge's numbers are: resampled over blocks of tissue, since neighbouring voxels share one field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biascorr_pydra.metrics import DSEG_LABELS

__all__ = ["BLOCK_MM", "CONFIDENCE", "Replicates"]

BLOCK_MM = 16.0
RESAMPLES = 400
CONFIDENCE = 0.95
#: Log intensities are counted in bins over this range about the tissue's median.
HALF_RANGE, BINS = 1.0, 1000


@dataclass(frozen=True)
class Replicates:
    """The ranking metrics of each image over resampled tissue; the same blocks are drawn for all images."""

    values: Mapping[str, Mapping[str, np.ndarray]]

    @classmethod
    def of(
        cls, images: Mapping[str, np.ndarray], tissue: np.ndarray, voxel_size_mm: Sequence[float], *, seed: int
    ) -> Replicates:
        """Resample blocks of ``BLOCK_MM``.

        Parameters
        ----------
        images : name -> float array (I, J, K), positive where there is tissue
        tissue : int array, same shape, 1 GM, 2 WM
        voxel_size_mm : three floats
        seed : of the draws
        """
        where = np.nonzero(tissue)
        labels = tissue[where]
        blocks = _blocks(where, voxel_size_mm)
        n = int(blocks.max()) + 1
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float32)
        values = {}
        for name, data in images.items():
            log = np.log(data[where].astype(np.float64))
            parts = [_quantiles(log, labels == DSEG_LABELS[t], blocks, draws) for t in ("GM", "WM")]
            (median_gm, spread_gm), (median_wm, spread_wm) = parts
            spread = spread_gm + spread_wm
            values[name] = {
                "tissue_spread": spread,
                "tissue_spread_to_contrast": spread / np.maximum(np.abs(median_wm - median_gm), 1e-6),
            }
        return cls(values)

    def interval(self, metric: str, first: str, second: str) -> tuple[float, float]:
        """Percentile interval of the change in percent from the first image to the second."""
        change = 100 * (self.values[second][metric] / self.values[first][metric] - 1)
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.percentile(change, (tail, 100 - tail))
        return float(low), float(high)


def _blocks(where: tuple[np.ndarray, ...], voxel_size_mm: Sequence[float]) -> np.ndarray:
    """The block of each voxel, numbered from 0 without gaps."""
    index = [(axis * size // BLOCK_MM).astype(int) for axis, size in zip(where, voxel_size_mm, strict=True)]
    sizes = [int(axis.max()) + 1 for axis in index]
    return np.unique(np.ravel_multi_index(index, sizes), return_inverse=True)[1]


def _quantiles(
    log: np.ndarray, chosen: np.ndarray, blocks: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Median and 1.4826 MAD of a tissue in each resample, from counts by block: no voxel is sorted twice."""
    values = log[chosen]
    center = np.median(values)
    bins = np.clip(((values - center + HALF_RANGE) * (BINS / (2 * HALF_RANGE))).astype(int), 0, BINS - 1)
    counts = np.bincount(blocks[chosen] * BINS + bins, minlength=draws.shape[1] * BINS).reshape(-1, BINS)
    below = np.cumsum(draws @ counts.astype(np.float32), axis=1)
    below = np.concatenate([np.zeros((len(below), 1)), below], axis=1) / below[:, -1:]
    edges = np.linspace(-HALF_RANGE, HALF_RANGE, BINS + 1)
    medians = np.array([np.interp(0.5, row, edges) for row in below])
    distances = np.linspace(0, HALF_RANGE, BINS // 2 + 1)
    mads = [
        np.interp(0.5, np.interp(m + distances, edges, row) - np.interp(m - distances, edges, row), distances)
        for m, row in zip(medians, below, strict=True)
    ]
    return center + medians, 1.482602218505602 * np.array(mads)
