"""Three-dimensional fields from a two-dimensional network: slices along the three axes, combined in the log domain.

A network sees slices of the image along each axis and gives each one's log gain, of a scale of its own. All of them are
fitted by one cubic B-spline over the image and one offset for each slice: weighted least squares in closed form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .. import weights as weights_module
from ..errors import InvalidImageError
from ..field import LogBiasSpline, bspline_basis, contract
from ..image import detect_head
from ._base import Estimate, Scan

__all__ = ["CONTROL_POINTS", "GRID", "combine", "estimate_by_slices", "loaded"]

GRID = (128, 128, 128)
CONTROL_POINTS = 7
SLICES = 32
SIZE, CELLS = 256, 16
# Slices with less foreground than this share of their area are left out.
LEAST_FOREGROUND = 0.02
BRIGHT_PERCENTILE = 99.0
RIDGE = 1e-4
SLICES_AT_ONCE = 32


@dataclass(frozen=True)
class _Stack:
    """The slices along one axis: their places on that axis (n), (n, 128, 128) images, and foreground by cells."""

    axis: int
    places: np.ndarray
    images: np.ndarray
    weights: np.ndarray


def loaded(network: type[torch.nn.Module], source: str, device: str) -> tuple[torch.nn.Module, str]:
    """A network of this class with packaged weights or those of a file, in evaluation mode, and their SHA-256.

    Raises
    ------
    WeightsError
        The weights are missing, damaged, or another network's.
    """
    sha256 = weights_module.sha256_of(source)
    return _loaded(network, source, sha256, device), sha256


@lru_cache(maxsize=4)
def _loaded(network: type[torch.nn.Module], source: str, sha256: str, device: str) -> torch.nn.Module:
    # The hash is part of the key so that weights that change on disk are read again.
    made = network()
    weights_module.load_network(made, source)
    return made.eval().to(device)


def estimate_by_slices(
    network: torch.nn.Module, scans: Sequence[Scan], *, device: str, record: Mapping[str, Any] | None = None
) -> list[Estimate]:
    """Estimate the log bias of scans on the grid ``GRID``.

    Parameters
    ----------
    network : (B, 1, 256, 256) slices, about 0 to 1, to (B, 1, 16, 16) log gain
    scans : data of shape ``GRID``
    device : torch device that the network is on
    record : facts for every estimate's record

    Raises
    ------
    InvalidImageError
        No voxel is positive.
    """
    stacks = [_stacks(scan) for scan in scans]
    images = np.concatenate([stack.images for three in stacks for stack in three])
    gains = iter(_run(network, images, device))
    estimates = []
    for three in stacks:
        parts = [(stack, np.stack([next(gains) for _ in stack.places])) for stack in three]
        control_points = combine(
            [(stack.axis, stack.places, gain, stack.weights) for stack, gain in parts], GRID[0], CONTROL_POINTS
        )
        facts = {
            **(record or {}),
            "slices": [len(stack.places) for stack in three],
            "control_points": list(control_points.shape),
        }
        estimates.append(Estimate(LogBiasSpline.spanning(control_points, GRID), facts))
    return estimates


def _stacks(scan: Scan) -> list[_Stack]:
    data = np.clip(scan.data, 0, None)
    if not (data > 0).any():
        raise InvalidImageError("the image has positive voxels", value=f"maximum {scan.data.max():g}")
    # Inside the head too, what is nearly black is noise: it says nothing of the field.
    counted = (detect_head(data) if scan.mask is None else scan.mask) & scan.valid
    counted = counted & (data > 0.1 * np.percentile(data[counted], BRIGHT_PERCENTILE)) if counted.any() else data > 0
    stacks = []
    for axis in range(3):
        places = _places(data.shape[axis])
        images, inside = (np.moveaxis(array, axis, 0)[places] for array in (data, counted))
        weights = _cell_means(inside.astype(np.float32))
        used = weights.mean((1, 2)) > LEAST_FOREGROUND
        if not used.any():
            used = weights.any((1, 2))
        images, inside, weights, places = images[used], inside[used], weights[used], places[used]
        bright = [np.percentile(image[there], BRIGHT_PERCENTILE) for image, there in zip(images, inside, strict=True)]
        scaled = np.minimum(images / np.array(bright, np.float32)[:, None, None], 1)
        stacks.append(_Stack(axis, places, scaled.astype(np.float32), weights))
    return stacks


def _places(n: int) -> np.ndarray:
    return np.round((np.arange(SLICES) + 0.5) * n / SLICES - 0.5).astype(int)


def _cell_means(images: np.ndarray) -> np.ndarray:
    n, rows, columns = images.shape
    return images.reshape(n, CELLS, rows // CELLS, CELLS, columns // CELLS).mean((2, 4))


def _run(network: torch.nn.Module, images: np.ndarray, device: str) -> np.ndarray:
    """Log gain (n, 16, 16) of slices (n, 128, 128), float64."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), SLICES_AT_ONCE):
            part = torch.from_numpy(images[start : start + SLICES_AT_ONCE])[:, None].to(device)
            part = functional.interpolate(part, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
            found.append(network(part)[:, 0].double().cpu().numpy())
    return np.concatenate(found)


def combine(
    stacks: Sequence[tuple[int, np.ndarray, np.ndarray, np.ndarray]], n: int, control_points: int, ridge: float = RIDGE
) -> np.ndarray:
    """The B-spline that fits the log gains of slices, each up to an offset of its own.

    Parameters
    ----------
    stacks : of the slices along each axis: the axis, their places (s), log gains (s, c, c) and weights (s, c, c)
        A slice's cells divide its n x n samples evenly; its first axis is the first of the two that are left.
    n : samples per axis
    control_points : per axis
    ridge : of the normal equations, relative to the mean of their diagonal

    Returns
    -------
    array (control_points per axis), of mean 0
    """
    count = control_points**3
    gram, right = np.zeros((count, count)), np.zeros(count)
    for axis, places, values, weights in stacks:
        cells = _cell_basis(n, values.shape[1], control_points)
        along = bspline_basis(places, control_points, first=0, last=n - 1)
        # Subtracting its weighted mean from everything in a slice solves for the slice's offset.
        totals = np.maximum(weights.sum((1, 2)), 1e-12)
        values = values - ((weights * values).sum((1, 2)) / totals)[:, None, None]
        means = np.einsum("sab,ai,bj->sij", weights, cells, cells) / np.sqrt(totals)[:, None, None]
        rows = _in_order(np.einsum("sk,sij->skij", along, means), axis).reshape(len(places), count)
        pairs = [np.einsum("ai,aj->aij", b, b).reshape(len(b), -1) for b in (along, cells, cells)]
        block = contract(weights, pairs).reshape(*[control_points] * 6).transpose(0, 2, 4, 1, 3, 5)
        block = _in_order(_in_order(block, axis, 0), axis, 3).reshape(count, count)
        gram += block - rows.T @ rows
        right += _in_order(contract(weights * values, (along, cells, cells))[None], axis).reshape(count)
    scale = np.trace(gram) / count
    # A constant is in every slice's offset: the ridge puts it to 0.
    gram[np.diag_indices(count)] += ridge * (scale or 1.0)
    found = np.linalg.solve(gram, right).reshape(*[control_points] * 3)
    return found - found.mean()


def _in_order(array: np.ndarray, axis: int, first: int = 1) -> np.ndarray:
    """Move axis ``first``, of the slices' own order, to where it belongs among the three from there on."""
    return np.moveaxis(array, first, first + axis)


@lru_cache
def _cell_basis(n: int, cells: int, control_points: int) -> np.ndarray:
    """Means of the basis over cells of n / cells samples: (cells, control_points)."""
    return bspline_basis(np.arange(n), control_points, first=0, last=n - 1).reshape(cells, n // cells, -1).mean(1)
