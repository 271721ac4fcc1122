"""Three tissues by intensity on a coarse grid: a Gaussian mixture with a Markov random field, for the judge alone.

Plain on purpose, and no part of any corrector: it knows nothing of fields, so that a field left in the image shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biascorr_pydra.errors import SegmentationError

__all__ = ["neighbours", "three_tissues"]

BINS = 400
EM_ITERATIONS = 150
FIELD_ITERATIONS = 6
#: Weight of a neighbour's probability in a voxel's log posterior; half of it for mixed voxels, which are borders.
NEIGHBOUR_WEIGHT = 0.6
#: Shares of the tissues in a brain, where the mixture starts and to which it is drawn.
USUAL_SHARES = {"CSF": 0.2, "GM": 0.45, "WM": 0.35}
DRAWN = 0.3
#: Range of the darker over the brighter mean of white and gray matter, by which is the darker and whether CSF is dark:
#: without it, voxels mixed of tissue and CSF take the place of a tissue where these are many (FLAIR).
RATIOS = {("GM", "WM"): (0.5, 0.92), ("WM", "GM"): (0.45, 0.9), ("CSF", "WM", "GM"): (0.65, 0.95)}
#: Share of mixed voxels, of any intensity: where it starts, and its range.
MIXED, MIXED_RANGE = 0.15, (0.02, 0.3)
#: A tissue's standard deviation, at most as a part of the distance to the nearest other mean.
WIDEST = 0.5
LEAST_SHARE = 0.01
#: Voxels below which there is nothing to fit.
LEAST_VALUES = 30


def neighbours(values: np.ndarray) -> np.ndarray:
    """Sum over the six face neighbours, nothing beyond the border; shape (..., I, J, K)."""
    total = np.zeros_like(values)
    for axis in (-3, -2, -1):
        low = [slice(None)] * values.ndim
        high = [slice(None)] * values.ndim
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        total[tuple(low)] += values[tuple(high)]
        total[tuple(high)] += values[tuple(low)]
    return total


def three_tissues(data: np.ndarray, inside: np.ndarray, order: Sequence[str]) -> np.ndarray:
    """Tissues of the voxels inside a mask, by intensity and neighbours.

    Parameters
    ----------
    data : float array (I, J, K), positive inside
    inside : boolean array, same shape
    order : 'CSF', 'GM' and 'WM' from the darkest to the brightest

    Returns
    -------
    int8 array, same shape
        1, 2, 3 in that order; 0 outside, and for voxels that belong to none.

    Raises
    ------
    SegmentationError
        There are no three tissues of different intensity.

    References
    ----------
    Zhang, Brady, Smith. Segmentation of brain MR images through a hidden Markov random field model and the
    expectation-maximization algorithm. IEEE TMI 20(1), 2001. Here with mean-field updates, and a fourth, even class for
    voxels that are mixed.
    """
    values = data[inside].astype(np.float32)
    if values.size < LEAST_VALUES:
        raise SegmentationError("the image is hardly anywhere positive in the brain", value=f"{values.size} voxels")
    mixture = _fitted(values, tuple(order))
    likelihood = mixture.log_likelihood(np.minimum(values, mixture.largest))
    posterior = np.zeros((4, *inside.shape), np.float32)
    posterior[:, inside] = _normalized(likelihood)
    for _ in range(FIELD_ITERATIONS):
        around = NEIGHBOUR_WEIGHT * neighbours(posterior)[:, inside]
        around[3] /= 2
        posterior[:, inside] = _normalized(likelihood + around)
    classes = np.zeros(inside.shape, np.int8)
    best = posterior[:, inside].argmax(0) + 1
    classes[inside] = np.where(best == 4, 0, best)
    if min(np.count_nonzero(classes == k) for k in (1, 2, 3)) < LEAST_SHARE * values.size:
        raise SegmentationError("there are not three tissues of different intensity in the brain")
    return classes


@dataclass
class _Mixture:
    """Three Gaussians in the order of their means, and an even share of mixed voxels from 0 to ``largest``."""

    means: np.ndarray
    sds: np.ndarray
    shares: np.ndarray
    mixed: float
    largest: float

    def log_likelihood(self, values: np.ndarray) -> np.ndarray:
        """Log of share times density, (4, n)."""
        z = (values - self.means[:, None]) / self.sds[:, None]
        tissues = np.log(np.maximum(self.shares, 1e-9) / (self.sds * np.sqrt(2 * np.pi)))[:, None] - z**2 / 2
        even = np.full((1, values.size), np.log(self.mixed / self.largest))
        return np.concatenate([tissues, even]).astype(np.float32)


def _fitted(values: np.ndarray, order: tuple[str, ...]) -> _Mixture:
    """The mixture that fits the histogram, by expectation-maximization from the tissues' usual shares."""
    largest = float(np.percentile(values, 99.8))
    if not largest > 0 or values.min() == largest:
        raise SegmentationError("the brain has one intensity, and no tissues", value=f"{largest:g}")
    counts, edges = np.histogram(values, BINS, (0, largest))
    centers, weights = (edges[:-1] + edges[1:]) / 2, counts / counts.sum()
    usual = np.array([USUAL_SHARES[tissue] for tissue in order])
    means = np.interp(np.cumsum(usual) - usual / 2, np.cumsum(weights), centers)
    sds = np.full(3, max(0.4 * np.diff(means).min(), 0.005 * largest))
    mixture = _Mixture(means, sds, usual * (1 - MIXED), MIXED, largest)
    for _ in range(EM_ITERATIONS):
        _improve(mixture, centers, _normalized(mixture.log_likelihood(centers)) * weights, order, usual)
    return mixture


def _improve(mixture: _Mixture, centers: np.ndarray, weights: np.ndarray, order: tuple[str, ...], usual: np.ndarray):
    """One step: the moments of the weighted histogram, held to what brains have."""
    total = np.maximum(weights.sum(1), 1e-9)
    means = weights[:3] @ centers / total[:3]
    variances = np.maximum(weights[:3] @ centers**2 / total[:3] - means**2, 0)
    mixture.means = _held(np.sort(means), total, order)
    gaps = np.diff(mixture.means)
    nearest = np.array([gaps[0], gaps.min(), gaps[1]])
    widest = np.maximum(WIDEST * nearest, 0.01 * mixture.largest)
    mixture.sds = np.minimum(np.sqrt(variances) + 0.005 * mixture.largest, widest)
    mixture.mixed = float(np.clip(total[3], *MIXED_RANGE))
    shares = (1 - DRAWN) * total[:3] + DRAWN * usual * total[:3].sum()
    mixture.shares = shares * (1 - mixture.mixed) / shares.sum()


def _held(means: np.ndarray, total: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """Means whose ratio of white and gray matter is one that this contrast has."""
    darker, brighter = sorted((order.index("GM"), order.index("WM")))
    least, most = RATIOS.get(order) or RATIOS[order[darker], order[brighter]]
    if means[darker] < least * means[brighter]:
        means[darker] = least * means[brighter]
    elif means[darker] > most * means[brighter]:
        both = [darker, brighter]
        middle = means[both] @ total[both] / total[both].sum()
        means[brighter] = middle * 2 / (1 + most)
        means[darker] = most * means[brighter]
    return means


def _normalized(log: np.ndarray) -> np.ndarray:
    probability = np.exp(log - log.max(0))
    return probability / probability.sum(0)
