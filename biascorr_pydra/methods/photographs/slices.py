"""Three-dimensional fields from a two-dimensional network: slices along the three axes, combined in the log domain.

A network sees slices of the image along each axis and gives each one's log gain, of a scale of its own. All of them are
fitted by one cubic B-spline over the image and one offset for each slice: weighted least squares in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from biascorr_pydra import weights as weights_module
from biascorr_pydra.errors import InvalidImageError, InvalidParameterError
from biascorr_pydra.images.field import DEGREE, LogBiasSpline, bspline_basis, contract
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan

__all__ = ["GRID", "SliceCorrector", "cell_basis", "combine", "estimate_by_slices", "loaded", "resized", "slice_places"]

GRID = (160, 160, 160)
SLICES = 32
SIZE, CELLS = 256, 16
# Spans of the spline over the head's extent, and at most over the image.
SPANS, MOST_SPANS = 4, 8
MARGIN = 0.05
# Inside the head too, what is nearly black is noise, and says nothing of the field.
DARK = 0.1
# Slices with less foreground than this share of their area are left out.
LEAST_FOREGROUND = 0.02
BRIGHT_PERCENTILE = 99.0
SLOPE, ROUGHNESS, RIDGE = 1e-2, 1e-3, 1e-6
SLICES_AT_ONCE = 32
MOST_PASSES = 10


@dataclass(frozen=True)
class Stack:
    """Slices along one axis, and the spline's basis functions there.

    Attributes
    ----------
    axis : that the slices are perpendicular to; their own axes are the other two in their order
    along : array (n, control points of the axis), the basis at each slice's place
    across : arrays (16, control points) for the slices' two axes, mean basis of each cell
    weights : array (n, 16, 16), how much of each cell is foreground
    images : float32 array (n, 256, 256), about 0 to 1
    """

    axis: int
    along: np.ndarray
    across: tuple[np.ndarray, np.ndarray]
    weights: np.ndarray
    images: np.ndarray


@dataclass(frozen=True)
class SliceCorrector(Corrector):
    """A corrector whose network sees whole slices, whether or not a mask is given; a mask says where the field counts.

    Class attribute, besides a corrector's own: ``network``, the network's class.
    """

    weights_file: str | None = field(
        default=None,
        metadata={"help": "Weights (.safetensors, with the card beside it) to use instead of the package's own."},
    )
    passes: int = field(
        default=2, metadata={"help": "How often the field is looked for, each time in the scan corrected so far."}
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "once": {"passes": 1}}
    grid_shape: ClassVar[tuple[int, int, int]] = GRID
    network: ClassVar[type[torch.nn.Module]]
    weights: ClassVar[str]

    def __post_init__(self):
        if not (isinstance(self.passes, int) and 1 <= self.passes <= MOST_PASSES):
            raise InvalidParameterError(f"passes is a whole number from 1 to {MOST_PASSES}", value=self.passes)

    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        """Estimate the log bias field, as the control points of a cubic B-spline over the grid.

        Nothing is drawn at random: ``seed`` has no effect.

        Raises
        ------
        InvalidImageError
            No voxel is positive.
        WeightsError
            The weights are missing, damaged, or another network's.
        """
        return self.estimate_batch([scan], device=device, seed=seed)[0]

    def estimate_batch(self, scans: Sequence[Scan], *, device: str = "cpu", seed: int = 0) -> list[Estimate]:
        """As :meth:`estimate`, the slices of several scans through the network together."""
        network, sha256 = loaded(self.network, self.weights_file or type(self).weights, device)
        return estimate_by_slices(network, scans, device=device, passes=self.passes, record={"weights_sha256": sha256})


def loaded(network: Callable[[], torch.nn.Module], source: str, device: str) -> tuple[torch.nn.Module, str]:
    """A network of this class with packaged weights or those of a file, in evaluation mode, and their SHA-256.

    Raises
    ------
    WeightsError
        The weights are missing, damaged, or another network's.
    """
    sha256 = weights_module.sha256_of(source)
    return _loaded(network, source, sha256, device), sha256


@lru_cache(maxsize=4)
def _loaded(network: Callable[[], torch.nn.Module], source: str, sha256: str, device: str) -> torch.nn.Module:
    # The hash is part of the key so that weights that change on disk are read again.
    made = network()
    weights_module.load_network(made, source)
    return made.eval().to(device)


def estimate_by_slices(
    network: torch.nn.Module,
    scans: Sequence[Scan],
    *,
    device: str,
    passes: int = 1,
    record: Mapping[str, Any] | None = None,
) -> list[Estimate]:
    """Estimate the log bias of scans on a grid.

    Parameters
    ----------
    network : (B, 1, 256, 256) slices, about 0 to 1, to (B, 1, 16, 16) log gain
    scans : of any shape; with a mask, slices are cut out with it
    device : torch device that the network is on
    passes : from the second on, the network sees the scan corrected so far, and what it finds is added
    record : facts for every estimate's record

    Raises
    ------
    InvalidImageError
        No voxel is positive.
    """
    regions = [_region(scan) for scan in scans]
    control_points = [
        np.zeros([_spans(box, n) + DEGREE for box, n in zip(r[1], scan.data.shape, strict=True)])
        for r, scan in zip(regions, scans, strict=True)
    ]
    steps: list[list[float]] = [[] for _ in scans]
    for number in range(passes):
        stacks = [
            _stacks(np.clip(scan.data, 0, None), region, points, corrected=number > 0)
            for scan, region, points in zip(scans, regions, control_points, strict=True)
        ]
        gains = iter(_run(network, np.concatenate([stack.images for three in stacks for stack in three]), device))
        for i, three in enumerate(stacks):
            values = [np.stack([next(gains) for _ in stack.images]) for stack in three]
            added = combine(three, values)
            control_points[i] = control_points[i] + added
            steps[i].append(round(float(added.std()), 5))
    return [
        Estimate(
            LogBiasSpline.spanning(points, scan.data.shape),
            {**(record or {}), "control_points": list(points.shape), "sd_of_each_pass": step},
        )
        for scan, points, step in zip(scans, control_points, steps, strict=True)
    ]


def _region(scan: Scan) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Where the field is to be estimated, and that region's extent on each axis with a margin: first and end."""
    data = np.clip(scan.data, 0, None)
    if not (data > 0).any():
        raise InvalidImageError("the image has positive voxels", value=f"maximum {scan.data.max():g}")
    region = (detect_head(data) if scan.mask is None else scan.mask) & scan.valid & (data > 0)
    if not region.any():
        region = data > 0
    extent = []
    for axis in range(3):
        places = np.flatnonzero(region.any(tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(MARGIN * (places[-1] + 1 - places[0])))
        extent.append((max(0, int(places[0]) - margin), min(region.shape[axis], int(places[-1]) + 1 + margin)))
    return region, extent


def _spans(box: tuple[int, int], n: int) -> int:
    return int(np.clip(round(SPANS * n / (box[1] - box[0])), SPANS, MOST_SPANS))


def _stacks(data: np.ndarray, region, control_points: np.ndarray, *, corrected: bool) -> list[Stack]:
    """The slices along the three axes of a scan, of which ``control_points`` were found so far."""
    inside, extent = region
    if corrected:
        data = data / np.exp(LogBiasSpline.spanning(control_points, data.shape).on_grid(data.shape))
    counted = inside & (data > DARK * np.percentile(data[inside], BRIGHT_PERCENTILE))
    box = tuple(slice(*ends) for ends in extent)
    seen, counted = np.ascontiguousarray(data[box], np.float32), counted[box]
    sizes = list(zip(extent, data.shape, control_points.shape, strict=True))
    stacks = []
    for axis in range(3):
        places = slice_places(*extent[axis])
        images, in_slices = (np.moveaxis(array, axis, 0)[places - extent[axis][0]] for array in (seen, counted))
        weights = resized(in_slices.astype(np.float32), CELLS, "area")
        used = weights.mean((1, 2)) > LEAST_FOREGROUND
        used = used if used.any() else weights.any((1, 2))
        images, in_slices, weights, places = images[used], in_slices[used], weights[used], places[used]
        bright = [np.percentile(image[t], BRIGHT_PERCENTILE) for image, t in zip(images, in_slices, strict=True)]
        images = np.minimum(images / np.array(bright, np.float32)[:, None, None], 1)
        _, n, count = sizes[axis]
        across = [cell_basis(*size) for other, size in enumerate(sizes) if other != axis]
        along = bspline_basis(places, count, first=0, last=n - 1)
        stacks.append(Stack(axis, along, (across[0], across[1]), weights, resized(images, SIZE, "bilinear")))
    return stacks


def slice_places(first: int, end: int) -> np.ndarray:
    """Indices of the slices that are looked at, evenly from ``first`` to before ``end``."""
    return np.round(first + (np.arange(SLICES) + 0.5) * (end - first) / SLICES - 0.5).astype(int)


def resized(images: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Slices (n, i, j) to (n, size, size)."""
    options: dict[str, bool] = {} if mode == "area" else {"align_corners": False}
    tensor = torch.from_numpy(np.ascontiguousarray(images))[:, None]
    return functional.interpolate(tensor, size=(size, size), mode=mode, **options)[:, 0].numpy()


def cell_basis(box: tuple[int, int], n: int, control_points: int) -> np.ndarray:
    """Means of the basis over the cells that divide a box evenly: (16, control_points)."""
    samples = box[0] - 0.5 + (np.arange(SIZE) + 0.5) * (box[1] - box[0]) / SIZE
    return bspline_basis(samples, control_points, first=0, last=n - 1).reshape(CELLS, SIZE // CELLS, -1).mean(1)


def _run(network: torch.nn.Module, images: np.ndarray, device: str) -> np.ndarray:
    """Log gain (n, 16, 16) of slices (n, 256, 256), float64."""
    log_gains = []
    with torch.inference_mode():
        for start in range(0, len(images), SLICES_AT_ONCE):
            part = torch.from_numpy(images[start : start + SLICES_AT_ONCE])[:, None].to(device)
            log_gains.append(network(part)[:, 0].double().cpu().numpy())
    return np.concatenate(log_gains)


def combine(
    stacks: Sequence[Stack],
    values: Sequence[np.ndarray],
    *,
    slope: float = SLOPE,
    roughness: float = ROUGHNESS,
    ridge: float = RIDGE,
) -> np.ndarray:
    """The B-spline that fits the log gains of slices, each up to an offset of its own.

    Parameters
    ----------
    stacks : the slices along each axis
    values : their log gains, (n, 16, 16) each
    slope, roughness, ridge : weights of the control points' squared first and second differences and of their squares,
        relative to the mean of the normal equations' diagonal: where there is no foreground the field levels off

    Returns
    -------
    array (i, j, k) of control points, of mean 0
    """
    sizes = _in_order(np.zeros([b.shape[1] for b in (stacks[0].along, *stacks[0].across)]), stacks[0].axis, 0).shape
    count = int(np.prod(sizes))
    gram, right = np.zeros((count, count)), np.zeros(count)
    for stack, log_gains in zip(stacks, values, strict=True):
        block, part = _normal_equations(stack, log_gains)
        gram += block
        right += part
    scale = np.trace(gram) / count or 1.0
    gram += scale * (slope * _differences(sizes, 1) + roughness * _differences(sizes, 2))
    # A constant is in every slice's offset: the ridge puts it to 0.
    gram[np.diag_indices(count)] += ridge * scale
    points = np.linalg.solve(gram, right).reshape(sizes)
    return points - points.mean()


def _normal_equations(stack: Stack, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and right side of one stack's, from which the slices' offsets have been eliminated."""
    weights, bases = stack.weights.astype(float), (stack.along, *stack.across)
    first, second = stack.across
    # Subtracting its weighted mean from everything in a slice solves for the slice's offset.
    totals = np.maximum(weights.sum((1, 2)), 1e-12)
    values = values - ((weights * values).sum((1, 2)) / totals)[:, None, None]
    means = np.einsum("sab,ai,bj->sij", weights, first, second, optimize=True) / np.sqrt(totals)[:, None, None]
    rows = _in_order(np.einsum("sk,sij->skij", stack.along, means), stack.axis, 1).reshape(len(weights), -1)
    pairs = [np.einsum("ai,aj->aij", b, b).reshape(len(b), -1) for b in bases]
    block = contract(weights, pairs).reshape([n for b in bases for n in (b.shape[1],) * 2]).transpose(0, 2, 4, 1, 3, 5)
    block = _in_order(_in_order(block, stack.axis, 0), stack.axis, 3).reshape(rows.shape[1], -1)
    return block - rows.T @ rows, _in_order(contract(weights * values, bases), stack.axis, 0).ravel()


def _in_order(array: np.ndarray, axis: int, first: int) -> np.ndarray:
    """Of three axes from ``first`` on, in a stack's order, move the slices' own to where it belongs."""
    return np.moveaxis(array, first, first + axis)


def _differences(sizes: Sequence[int], order: int) -> np.ndarray:
    """Quadratic form of the differences of this order along each axis: (count, count)."""
    total = np.zeros((int(np.prod(sizes)),) * 2)
    for axis in range(3):
        factors = [np.eye(n) for n in sizes]
        difference = np.diff(np.eye(sizes[axis]), order, axis=0)
        factors[axis] = difference.T @ difference
        total = total + np.kron(np.kron(factors[0], factors[1]), factors[2])
    return total
