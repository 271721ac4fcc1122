"""What N4 does to a scan before it iterates (mask, clipping, padding, thinning, logarithm), and the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from biascorr_pydra.errors import InvalidMaskError
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.methods.corrector import Estimate, Scan

from .parameters import Parameters
from .voxels import Problem

if TYPE_CHECKING:
    from .iterate import Solution

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class _Axis:
    """One axis of the image and of the grid that N4 works on.

    ``n`` voxels, ``before`` more padded in front, ``padded`` in all, every ``factor``-th from ``start`` (counted in the
    padded image) taken, ``spans`` of the mesh at the first level.
    """

    n: int
    before: int
    padded: int
    factor: int
    start: int
    spans: int

    @property
    def size(self) -> int:
        return max(self.padded // self.factor, 1)

    def first(self, exact: bool) -> float:
        """Where the mesh begins on the working grid: at the image's first voxel, or at the grid's."""
        return -self.start / self.factor if exact else 0.0

    def last(self, exact: bool) -> float:
        """Where the mesh ends on the working grid: at the image's last voxel, or at the grid's."""
        return (self.padded - 1 - self.start) / self.factor if exact else self.size - 1.0

    def inside(self) -> tuple[slice, int]:
        """The samples that lie in the image, as a slice of it; index on the working grid of the first of them."""
        skipped = max(0, -((self.start - self.before) // self.factor))
        first = self.start + skipped * self.factor - self.before
        count = min(self.size - skipped, (self.n - 1 - first) // self.factor + 1)
        return slice(first, first + (count - 1) * self.factor + 1, self.factor), skipped


@dataclass(frozen=True)
class Prepared:
    """A problem for the core, and what is needed to read its solution."""

    problem: Problem
    axes: tuple[_Axis, _Axis, _Axis]
    record: Mapping[str, Any]

    def estimate(self, solution: Solution) -> Estimate:
        """The solution over the image's own grid, and the record of how it was reached."""
        i, j, k = self.axes
        first = (float(-i.before), float(-j.before), float(-k.before))
        last = (float(i.padded - 1 - i.before), float(j.padded - 1 - j.before), float(k.padded - 1 - k.before))
        levels = [asdict(level) for level in solution.levels]
        record = {
            **self.record,
            "levels": levels,
            "iterations": sum(level["iterations"] for level in levels),
            "converged": all(level["converged"] for level in levels),
            "stopped_by_time": solution.stopped_by_time,
        }
        return Estimate(LogBiasSpline(solution.control_points, first, last), record)


def prepare(scan: Scan, options: Parameters) -> Prepared:
    """Lay out one scan for N4.

    Raises
    ------
    InvalidMaskError
        No usable voxel is left in the mask on the working grid.
    """
    i, j, k = (
        _axis(n, size, k, options) for k, (n, size) in enumerate(zip(scan.data.shape, scan.voxel_size_mm, strict=True))
    )
    axes = (i, j, k)
    pick, skipped = zip(*(axis.inside() for axis in axes), strict=True)
    data = scan.data[pick]
    valid = scan.valid[pick]
    limits = None
    if options.clip_percentiles is not None:
        limits = np.percentile(scan.data[scan.valid], options.clip_percentiles).astype(np.float32)
        data = np.clip(data, *limits)
    wanted, source = _mask(scan, data, pick, options)
    mask = wanted & valid
    nonpositive = mask & ~(data > 0)
    n_nonpositive = int(np.count_nonzero(nonpositive))
    if options.nonpositive == "exclude":
        mask &= ~nonpositive
    weight = mask.astype(np.float32)
    if scan.weight is not None:
        weight *= np.clip(np.nan_to_num(scan.weight[pick], posinf=0.0), 0, None)
    used = weight > 0
    if not used.any():
        raise InvalidMaskError(
            "no usable voxel is left in the mask at the working resolution",
            value=f"{int(wanted.sum())} of {wanted.size} voxels in the mask, {n_nonpositive} of them zero or negative",
            next_step="Check the mask, or lower shrink_mm or shrink_factor.",
        )
    box = tuple(_extent(used.any(tuple({0, 1, 2} - {axis}))) for axis in range(3))
    # ITK leaves a voxel without a logarithm as it is: 0 stays 0, as if its intensity were 1; -5 stays -5.
    log = np.where(data[box] > 0, np.log(np.where(data[box] > 0, data[box], 1)), data[box]).astype(np.float32)
    record = {
        "shrink_factors": [axis.factor for axis in axes],
        "mesh": [axis.spans for axis in axes],
        "mask": source,
        "n_voxels_used": int(used.sum()),
        "n_nonfinite_left_out": int(np.count_nonzero(wanted & ~valid)),
        "n_nonpositive_left_out": n_nonpositive if options.nonpositive == "exclude" else 0,
        "n_nonpositive_kept": n_nonpositive if options.nonpositive == "keep" else 0,
    }
    if options.rescale and scan.mask is not None:
        values = scan.data[scan.mask & scan.valid]
        values = values if limits is None else np.clip(values, *limits)
        record["rescale_to"] = [float(values.min()), float(values.max())]
    elif options.rescale:
        record["rescale_to"] = None
        record["notes"] = ["rescale needs a mask, as in ANTs: none was given, so there is no range to rescale to."]
    exact = options.mesh_over == "image"
    problem = Problem(
        log=np.ascontiguousarray(log),
        weight=np.ascontiguousarray(weight[box]),
        corner=tuple(skip + part.start for skip, part in zip(skipped, box, strict=True)),
        first=(i.first(exact), j.first(exact), k.first(exact)),
        last=(i.last(exact), j.last(exact), k.last(exact)),
        mesh=(i.spans, j.spans, k.spans),
    )
    return Prepared(problem, axes, record)


def _axis(n: int, voxel_size_mm: float, axis: int, options: Parameters) -> _Axis:
    if options.shrink_factor is not None:
        factor = min(int(options.shrink_factor), n)
    else:
        shrink_mm = cast(float, options.shrink_mm)  # one of the two is given
        factor = max(1, min(round(shrink_mm / voxel_size_mm), n // 4))
    spans, before, padded = int(options.mesh[axis]), 0, n
    if (distance := options.spline_distance_mm) is not None:
        # As ANTs: the image is padded with voxels outside the mask until a whole number of spans covers it.
        length = (n - 1) * voxel_size_mm
        spans = max(1, math.ceil(length / distance))
        padding = int((spans * distance - length) / voxel_size_mm + 0.5)
        before, padded = padding // 2, n + padding
    start = _itk_start(padded, before, factor, voxel_size_mm)
    if options.shrink_start is not None:
        # The last sample has to stay inside the image.
        start = min(int(options.shrink_start[axis]) + before, padded - 1 - (max(padded // factor, 1) - 1) * factor)
    return _Axis(n, before, padded, factor, start, spans)


def _itk_start(n: int, before: int, factor: int, voxel_size_mm: float) -> int:
    """First voxel that ITK's ShrinkImageFilter takes of an axis whose first voxel has index ``-before``.

    ITK aligns the centres of the two grids in mm and takes the nearest voxel. Where two are equally near, as with an
    even size and factor, the last bit of a product decides; so the products are those that ITK forms for an image at
    the origin with identity direction.
    """
    size = max(n // factor, 1)
    first = math.ceil(-before / factor)
    centre = voxel_size_mm * (-before + (n - 1) / 2)
    thinned_centre = voxel_size_mm * factor * (first + (size - 1) / 2)
    place = (centre - thinned_centre) + voxel_size_mm * factor * first
    offset = math.floor(place * (1 / voxel_size_mm) + 0.5) - first * factor
    return max(offset, 0) + first * factor + before


def _mask(scan: Scan, data: np.ndarray, pick, options: Parameters) -> tuple[np.ndarray, str]:
    """The mask on the picked voxels, and where it comes from."""
    if scan.mask is not None:
        return scan.mask[pick], "given"
    if options.default_mask == "head":
        return detect_head(data), "detected head"
    if options.default_mask == "positive":
        return data > 0, "positive voxels"
    return np.ones(data.shape, bool), "all voxels"


def _extent(line: np.ndarray) -> slice:
    """From the first to the last true entry."""
    places = np.flatnonzero(line)
    return slice(int(places[0]), int(places[-1]) + 1)
