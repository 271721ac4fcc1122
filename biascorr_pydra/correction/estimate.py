"""A corrector's estimate on an image's own grid; of one scan, or of several together, ahead of their own corrections.

On a GPU several scans estimated at once take hardly longer than one. Whoever has several to correct there
(:mod:`biascorr_pydra.workers`) lets them be estimated together first; each scan's own correction then finds its field
in the batch's cache, by the very numbers that it would be estimated from, and does everything else as always. A field
that is not in there is estimated then: nothing depends on this having been done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra.images.canonical import from_canonical, spline_from_canonical, to_canonical
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.metrics import response_slope

from .cache import EstimateCache, key_of

__all__ = ["disagreement_of_flips", "estimate", "estimate_ahead", "estimate_in_full", "response", "scan_on_grid"]

EXTRA_POINTS, EXTRA_SD = 5, 0.15  # control points per axis and strength of the known field


def estimate(
    corrector: Corrector, affine: np.ndarray, scan: Scan, *, device: str, seed: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Log bias on the native grid (I, J, K), and the method's record; by way of the method's own grid if it has one."""
    log_bias, in_full = estimate_in_full(corrector, affine, scan, device=device, seed=seed)
    return log_bias, dict(in_full.record)


def estimate_in_full(
    corrector: Corrector,
    affine: np.ndarray,
    scan: Scan,
    *,
    device: str,
    seed: int,
    progress: Callable[..., None] | None = None,
) -> tuple[np.ndarray, Estimate]:
    """Log bias on the native grid (I, J, K), and all that the method returned, its ``brain`` on that grid too.

    Parameters
    ----------
    corrector : Corrector
    affine : array (4, 4)
        Of the scan's grid; a method with a grid of its own works in RAS+ order.
    scan : Scan
        On the native grid.
    device : "cpu" or "cuda"
    seed : int
    progress : callable, optional
        For methods that report it.
    """
    native = scan.data.shape
    scan = scan_on_grid(corrector, affine, scan)
    cache = EstimateCache.current()
    in_full = cache.take(key_of(corrector, scan, device, seed)) if cache else None
    if in_full is None:
        reporting = {"progress": progress} if progress and corrector.reports_progress else {}
        in_full = corrector.estimate(scan, device=device, seed=seed, **reporting)
    log_bias = in_full.log_bias
    if isinstance(log_bias, LogBiasSpline):
        if corrector.grid_shape is not None:
            log_bias = spline_from_canonical(log_bias, affine, native, corrector.grid_shape)
        log_bias = log_bias.on_grid(native)
    if in_full.brain is not None and corrector.grid_shape is not None:
        in_full = replace(in_full, brain=from_canonical(in_full.brain, affine, native) >= 0.5)
    return log_bias, in_full


def estimate_ahead(corrector: Corrector, scans: Sequence[Scan], cache: EstimateCache, *, device: str, seed: int) -> int:
    """Estimate scans (from :func:`scan_on_grid`) together and keep the fields in a cache; how many at once.

    Where the device's memory does not hold all of them, half as many are tried at a time, down to one: then nothing is
    kept, and each is estimated in its own turn, as is every scan that the cache has no room for.
    """
    import torch

    scans = scans[: cache.room]
    size = len(scans)
    while size > 1:
        try:
            for start in range(0, len(scans), size):
                part = scans[start : start + size]
                estimates = corrector.estimate_batch(part, device=device, seed=seed)
                kept = [
                    cache.put(key_of(corrector, scan, device, seed), in_full)
                    for scan, in_full in zip(part, estimates, strict=True)
                ]
                if not all(kept):
                    break
            return size
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            size = -(-size // 2)
    return 1


def scan_on_grid(corrector: Corrector, affine: np.ndarray, scan: Scan) -> Scan:
    """The scan as the corrector takes it: in RAS+ order on its grid over the field of view, or as it is."""
    shape = corrector.grid_shape
    if shape is None:
        return scan
    mask = scan.mask
    if mask is not None:
        mask = to_canonical(mask.astype(np.float32), affine, shape) >= 0.5
    ornt = nib.io_orientation(affine)
    extent = np.empty(3)
    for axis, (world, _) in enumerate(ornt):
        extent[int(world)] = scan.voxel_size_mm[axis] * (scan.data.shape[axis] - 1)
    size_i, size_j, size_k = (float(size) for size in extent / (np.array(shape) - 1))
    return Scan(to_canonical(scan.data, affine, shape), np.ones(shape, bool), mask, (size_i, size_j, size_k))


def disagreement_of_flips(
    corrector: Corrector,
    log_bias: np.ndarray,
    mask: np.ndarray,
    *,
    affine: np.ndarray,
    scan: Scan,
    device: str,
    seed: int,
) -> tuple[np.ndarray, float]:
    """How far the fields of an image and of its three mirror images are apart.

    Parameters
    ----------
    corrector, affine, scan, device, seed : see :func:`estimate_in_full`
    log_bias : array (I, J, K)
        The estimate from the image itself.
    mask : boolean array, same shape
        Over which each log field is given mean 0.

    Returns
    -------
    uncertainty : float32 array (I, J, K)
        Standard deviation (n - 1) of the four log fields at each voxel: for small values, of the field itself,
        relative to it.
    disagreement : float
        Its root mean square over the mask, relative to the standard deviation of ``log_bias`` there.

    Notes
    -----
    Mirroring changes nothing that matters to a bias field, so that an estimator should not mind. It bounds the error
    from below: what is wrong alike in all four cannot show.
    """
    first = log_bias - log_bias[mask].mean(dtype=np.float64).astype(np.float32)
    mean, squares = first.copy(), np.zeros_like(first)
    for axis in range(3):
        mirrored, _ = estimate(corrector, affine, _mirrored(scan, axis), device=device, seed=seed)
        other = np.flip(mirrored, axis)
        other = other - other[mask].mean(dtype=np.float64).astype(np.float32)
        step = other - mean
        mean += step / (axis + 2)
        squares += step * (other - mean)
    uncertainty = np.sqrt(squares / 3)
    spread = float(first[mask].std(dtype=np.float64))
    rms = float(np.sqrt(np.mean(uncertainty[mask].astype(np.float64) ** 2)))
    return uncertainty.astype(np.float32), rms / spread if spread > 0 else 0.0


def _mirrored(scan: Scan, axis: int) -> Scan:
    def flipped(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(array, axis))

    mask, weight = (None if array is None else flipped(array) for array in (scan.mask, scan.weight))
    return Scan(flipped(scan.data), flipped(scan.valid), mask, scan.voxel_size_mm, weight)


def response(
    corrector: Corrector,
    log_bias: np.ndarray,
    mask: np.ndarray,
    *,
    affine: np.ndarray,
    scan: Scan,
    device: str,
    seed: int,
) -> float:
    """How much of a further known field the method sees: 1 is all of it, 0 that it does not look at the image.

    The image is multiplied by a fixed smooth field with a standard deviation of 0.15 over the mask; the slope of the
    change of the estimate on that field is returned, all in logs. Parameters as of :func:`disagreement_of_flips`.
    """
    points = np.random.default_rng(0).normal(size=(EXTRA_POINTS,) * 3)
    known = LogBiasSpline.spanning(points, scan.data.shape).on_grid(scan.data.shape)
    known = (known - known[mask].mean()) * (EXTRA_SD / known[mask].std())
    multiplied = replace(scan, data=scan.data * np.exp(known))
    again, _ = estimate(corrector, affine, multiplied, device=device, seed=seed)
    return response_slope(again - log_bias, known, mask)
