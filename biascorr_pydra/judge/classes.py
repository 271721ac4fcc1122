"""Three classes of intensity on a coarse grid: a Gaussian mixture with a Markov random field, for the judge alone.

Plain on purpose, and no part of any corrector: it knows nothing of fields, so that a field left in the image shows.
"""

from __future__ import annotations

import numpy as np

from biascorr_pydra.errors import SegmentationError

__all__ = ["neighbours", "three_classes"]

BINS = 256
EM_ITERATIONS = 60
FIELD_ITERATIONS = 8
#: Weight of a neighbour's probability in a voxel's log posterior.
NEIGHBOUR_WEIGHT = 0.6
LEAST_SHARE = 0.01


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


def three_classes(data: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Classes of the voxels inside a mask, by intensity and neighbours.

    Parameters
    ----------
    data : float array (I, J, K), finite inside
    inside : boolean array, same shape

    Returns
    -------
    int8 array, same shape
        1, 2, 3 from the darkest to the brightest, 0 outside.

    Raises
    ------
    SegmentationError
        There are no three classes of intensity.

    References
    ----------
    Zhang, Brady, Smith. Segmentation of brain MR images through a hidden Markov random field model and the
    expectation-maximization algorithm. IEEE TMI 20(1), 2001. Here with mean-field updates.
    """
    values = data[inside].astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    if not high > low:
        raise SegmentationError("the brain has one intensity, and no classes", value=f"{low:g}")
    scaled = np.clip((values - low) / (high - low), 0, 1)
    means, sds, shares = _mixture(scaled)
    volume = np.zeros(inside.shape, np.float32)
    volume[inside] = scaled
    posterior = np.zeros((3, *inside.shape), np.float32)
    posterior[:, inside] = _posterior(_log_likelihood(scaled, means, sds) + np.log(shares)[:, None])
    for _ in range(FIELD_ITERATIONS):
        around = neighbours(posterior)[:, inside]
        weighted = _posterior(_log_likelihood(scaled, means, sds) + NEIGHBOUR_WEIGHT * around)
        means, sds = _moments(scaled, weighted)
        posterior[:, inside] = weighted
    classes = np.zeros(inside.shape, np.int8)
    order = np.argsort(np.argsort(means)).astype(np.int8) + 1
    classes[inside] = order[posterior[:, inside].argmax(0)]
    if min(np.count_nonzero(classes == k) for k in (1, 2, 3)) < LEAST_SHARE * values.size:
        raise SegmentationError(
            "no three classes of intensity in the brain", next_step="Look at the image and its mask."
        )
    return classes


def _mixture(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, standard deviations and shares of three Gaussians, fitted to the histogram by expectation-maximization."""
    counts, edges = np.histogram(scaled, BINS, (0, 1))
    centers = (edges[:-1] + edges[1:]) / 2
    means = _kmeans(centers, counts)
    sds, shares = np.full(3, 0.1), np.full(3, 1 / 3)
    for _ in range(EM_ITERATIONS):
        weights = _posterior(_log_likelihood(centers, means, sds) + np.log(shares)[:, None]) * counts
        shares = np.maximum(weights.sum(1) / counts.sum(), 1e-6)
        means, sds = _moments(centers, weights)
    return means, sds, shares


def _kmeans(centers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    cumulated = np.cumsum(counts) / counts.sum()
    means = np.interp((1 / 6, 1 / 2, 5 / 6), cumulated, centers)
    for _ in range(30):
        nearest = np.abs(centers - means[:, None]).argmin(0)
        sums = np.bincount(nearest, counts, 3)
        means = np.where(sums > 0, np.bincount(nearest, counts * centers, 3) / np.maximum(sums, 1), means)
    return means


def _moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = np.maximum(weights.sum(1), 1e-9)
    means = weights @ values / total
    variance = np.maximum(weights @ values**2 / total - means**2, 0)
    return means, np.sqrt(variance) + 0.01


def _log_likelihood(values: np.ndarray, means: np.ndarray, sds: np.ndarray) -> np.ndarray:
    return -0.5 * ((values - means[:, None]) / sds[:, None]) ** 2 - np.log(sds)[:, None]


def _posterior(log: np.ndarray) -> np.ndarray:
    log = log - log.max(0)
    probability = np.exp(log)
    return probability / probability.sum(0)
