"""The passes that N4 makes over voxels, for one scan on a CPU and for a batch of scans on any device.

Only the box around the mask is kept in memory; the lattice still spans the whole grid, because B-splines separate by
axis and rows outside the box carry no data.

:class:`SlabVoxels` goes through the box in slabs small enough for a CPU's cache, in a fixed order. :class:`BatchVoxels`
does the same arithmetic in whole-array operations, and adds up its histogram in integers, because a GPU's order of
addition is not fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from biascorr_pydra.images.field import bspline_basis

from .itk_convergence import itk_reach, itk_variation

__all__ = ["BatchVoxels", "Problem", "SlabVoxels", "level_bases"]

SLAB_VOXELS = 1 << 17  # what a slab needs then about fits a 1 MB cache, and calls cost little beside their work
FIXED_POINT = 1 << 32  # of BatchVoxels' histogram: 2^31 voxels fit a 64-bit sum with a resolution of 2^-32


@dataclass(frozen=True)
class Problem:
    """One scan as N4 sees it.

    Attributes
    ----------
    log : float32 array (X, Y, Z)
        Log intensities in the box around the mask; any finite value outside the mask.
    weight : float32 array (X, Y, Z)
        Weight of each voxel in the fit, 0 outside the mask.
    corner : three ints
        Index of the box's first voxel on the working grid.
    first, last : three floats each
        Where on the working grid, in its voxels, the B-spline mesh begins and ends.
    mesh : three ints
        Spans per axis at the first level.
    """

    log: np.ndarray
    weight: np.ndarray
    corner: tuple[int, int, int]
    first: tuple[float, float, float]
    last: tuple[float, float, float]
    mesh: tuple[int, int, int]


def level_bases(problem: Problem, lattice: Sequence[int]) -> list[np.ndarray]:
    """Basis matrices (X, i), (Y, j), (Z, k) of the problem's box for a lattice (i, j, k) over its mesh; float64."""
    axes = zip(problem.log.shape, problem.corner, lattice, problem.first, problem.last, strict=True)
    return [bspline_basis(np.arange(c, c + size), n, first=a, last=b) for size, c, n, a, b in axes]


def _fit_bases(bases: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Bases for the numerator, b^3 / sum(b^2), and the denominator, b^2, of Lee, Wolberg and Shin's approximation."""
    squares = [b**2 for b in bases]
    return [b**3 / b2.sum(1, keepdims=True) for b, b2 in zip(bases, squares, strict=True)], squares


def _inverse(denominator: torch.Tensor) -> torch.Tensor:
    """Reciprocal, and 0 for control points that no voxel reaches."""
    return torch.where(denominator != 0, 1 / torch.where(denominator != 0, denominator, 1.0), 0.0)


@dataclass(frozen=True)
class _Slab:
    """Consecutive planes of the box: ``planes`` of its first axis, holding ``voxels`` of the flat arrays.

    ``places`` are those voxels' indices in the slab; None if they are all of it.
    """

    planes: slice
    voxels: slice
    places: torch.Tensor | None


class SlabVoxels:
    """The voxels of one scan on the CPU, those in the mask only; results have a first axis of length 1."""

    def __init__(
        self,
        problem: Problem,
        bins: int,
        dtype: torch.dtype,
        *,
        itk_range: bool = False,
        itk_convergence: bool = False,
    ):
        self.problems, self.bins, self.dtype, self.device = [problem], bins, dtype, torch.device("cpu")
        self.box = problem.log.shape
        inside = problem.weight > 0
        self.slabs = _slabs(inside)
        self.itk_range, self.itk_convergence = itk_range, itk_convergence
        self.itk_order = _itk_order(inside) if itk_range or itk_convergence else torch.empty(0, dtype=torch.int64)
        self.below = torch.empty(0, dtype=torch.int64)
        log, weight = problem.log[inside], problem.weight[inside]
        # Nothing depends on the mean of the log intensities; without it, differences keep more digits.
        self.log = torch.from_numpy(log - log.mean(dtype=np.float64).astype(np.float32)).to(dtype)
        self.weight = None if (weight == 1).all() else torch.from_numpy(weight).to(dtype)
        self.u, self.share = torch.empty_like(self.log), torch.empty_like(self.log)
        self.index = torch.empty(self.log.shape, dtype=torch.uint8 if bins <= 256 else torch.int32)
        # The slab that update() looks at first.
        self.slabs.sort(key=lambda slab: -(slab.voxels.stop - slab.voxels.start))
        largest = max(slab.planes.stop - slab.planes.start for slab in self.slabs)
        self.dense = torch.empty((largest, *self.box[1:]), dtype=dtype)

    def start_level(self, phi: torch.Tensor, bases) -> torch.Tensor:
        """Set u to log intensity minus log bias; return the inverse denominators (1, i, j, k), float64."""
        cubes, squares = _fit_bases(bases[0])
        self.evaluating, self.fitting, fitted_squares = (
            [torch.from_numpy(b).to(self.dtype) for b in each] for each in (bases[0], cubes, squares)
        )
        denominator = torch.zeros(phi.shape[1:], dtype=torch.float64)
        weight = torch.ones_like(self.log) if self.weight is None else self.weight
        control = self._expand_y(phi[0])
        for slab in self.slabs:
            denominator += self._contract(weight[slab.voxels], slab, fitted_squares)
            torch.sub(self.log[slab.voxels], self._expand(control, slab), out=self.u[slab.voxels])
        return _inverse(denominator)[None]

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest u in the mask, (1,) each, float64."""
        low, high = self.u.aminmax()
        if self.itk_range:
            self.below = self.below[:0]
            if self.u[self.itk_order[0]] == low:
                low = _itk_low(self.u[self.itk_order])
                self.below = torch.nonzero(self.u < low)[:, 0]
        return low.double()[None], high.double()[None]

    def histogram(self, low: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Histogram of u in the mask, each voxel shared between its two nearest bins; (1, bins), float64."""
        first, scale = float(low), 1 / float(step)
        number, upper = (torch.zeros(self.bins, dtype=torch.float64) for _ in range(2))
        for slab in self.slabs:
            share = torch.sub(self.u[slab.voxels], first, out=self.share[slab.voxels]).mul_(scale)
            # Rounding may put the ends of the range just outside of it.
            share.clamp_(0, self.bins - 1)
            index = self.index[slab.voxels].copy_(share)
            share -= index
            number += torch.bincount(index, minlength=self.bins)
            upper += torch.bincount(index, share, minlength=self.bins)
        number[0] -= len(self.below)
        histogram = number - upper
        histogram[1:] += upper[:-1]
        return histogram[None]

    def fit(self, table: torch.Tensor, low: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Numerators (1, i, j, k), float64, of the B-spline approximation of u minus its sharpened value."""
        # The residual is a straight line over each bin: its value at the bin's centre, and its rise to the next.
        residuals = low + step * torch.arange(self.bins) - table[0]
        rises = torch.nn.functional.pad(residuals[1:] - residuals[:-1], (0, 1)).to(self.dtype)
        residuals = residuals.to(self.dtype)
        numerator = torch.zeros([b.shape[1] for b in self.fitting], dtype=torch.float64)
        for slab in self.slabs:
            index = self.index[slab.voxels].int()
            residual = torch.index_select(rises, 0, index).mul_(self.share[slab.voxels])
            residual += torch.index_select(residuals, 0, index)
            for voxel in self.below[(self.below >= slab.voxels.start) & (self.below < slab.voxels.stop)].tolist():
                residual[voxel - slab.voxels.start] = self.u[voxel] - table[0, -1]
            if self.weight is not None:
                residual *= self.weight[slab.voxels]
            numerator += self._contract(residual, slab, self.fitting)
        return numerator[None]

    def update(self, change: torch.Tensor, tolerance: float, last: bool) -> torch.Tensor | None:
        """Take a change of the lattice off u.

        Returns the variation (1,) of the ratio of the new and old fields, or None if it certainly is above
        ``tolerance`` and this is not the ``last`` iteration: the spread within one slab already shows that, most of
        the time.
        """
        control = self._expand_y(change[0])
        bound = float(change.abs().max())
        count = len(self.u)
        reach = tolerance * (itk_reach(count) if self.itk_convergence else 1)
        sums = torch.zeros(2, dtype=torch.float64)
        measure = True
        for number, slab in enumerate(self.slabs):
            difference = self._expand(control, slab)
            self.u[slab.voxels] -= difference
            if measure:
                ratio = _expm1(difference, bound).double()
                sums += torch.stack([ratio.sum(), torch.dot(ratio, ratio)])
            if number == 0 and not last:
                here = len(ratio)
                spread = _variation(sums[0], sums[1], torch.tensor(float(here)))
                spread = spread * math.sqrt(max(here - 1, 0) / max(count - 1, 1))
                # The mean ratio may differ between the slab and the mask, but by less than a factor of two.
                measure = not (bound < 0.3 and spread > 2 * reach)
        if not measure:
            return None
        variation = _variation(sums[0], sums[1], torch.tensor(float(count)))[None]
        if self.itk_convergence and 0 < variation <= reach:
            for slab in self.slabs:
                self.share[slab.voxels] = self._expand(control, slab)
            variation[0] = _itk_variation(self.share[self.itk_order])
        return variation

    def _expand_y(self, control: torch.Tensor) -> torch.Tensor:
        """A lattice (i, j, k) evaluated along the second axis, which all slabs share: (i, Y * k)."""
        return torch.matmul(self.evaluating[1], control.to(self.dtype)).flatten(1)

    def _expand(self, control: torch.Tensor, slab: _Slab) -> torch.Tensor:
        """The rest of the evaluation, at a slab's voxels: flat."""
        bx, _, bz = self.evaluating
        values = (bx[slab.planes] @ control).view(-1, bz.shape[1]) @ bz.T
        return values.view(-1) if slab.places is None else values.view(-1).index_select(0, slab.places)

    def _contract(self, array: torch.Tensor, slab: _Slab, bases) -> torch.Tensor:
        """A slab's voxels, flat, summed against the tensor product of three bases: (i, j, k)."""
        if slab.places is not None:
            dense = self.dense[: slab.planes.stop - slab.planes.start].zero_()
            array = dense.view(-1).scatter_(0, slab.places, array)
        # From the last axis to the first, each time the narrow matrix on the left: BLAS is several times faster so.
        for basis in (bases[2], bases[1], bases[0][slab.planes]):
            array = basis.T @ array.view(-1, basis.shape[0]).T
        return array.view([b.shape[1] for b in bases])


def _slabs(inside: np.ndarray) -> list[_Slab]:
    """Cut a box into slabs of whole planes with about SLAB_VOXELS each."""
    rows = max(1, SLAB_VOXELS // (inside.shape[1] * inside.shape[2]))
    slabs, start = [], 0
    for first in range(0, inside.shape[0], rows):
        part = inside[first : first + rows]
        places = np.flatnonzero(part)
        if places.size:
            voxels = slice(start, start + places.size)
            full = places.size == part.size
            slabs.append(_Slab(slice(first, first + len(part)), voxels, None if full else torch.from_numpy(places)))
            start = voxels.stop
    return slabs


def _itk_order(inside: np.ndarray) -> torch.Tensor:
    """Indices of the mask's voxels, counted last axis fastest, in ITK's order, first axis fastest."""
    return torch.from_numpy(np.lexsort(np.nonzero(inside)))


def _itk_low(u: torch.Tensor) -> torch.Tensor:
    """The smallest value as ITK's N4 finds it, voxels in its order.

    It compares a voxel with the smallest so far only if it is not the largest so far. So if the first voxel is the
    smallest, the histogram begins above it; the voxel is then left out of it, and sharpened to the last bin's value.
    """
    largest_before = torch.cummax(u, 0).values[:-1]
    later = u[1:][u[1:] <= largest_before]
    return later.min() if len(later) else u[0]


class BatchVoxels:
    """The voxels of B scans on one device, padded to a common box."""

    def __init__(
        self,
        problems: Sequence[Problem],
        bins: int,
        dtype: torch.dtype,
        device: str,
        *,
        itk_range: bool = False,
        itk_convergence: bool = False,
    ):
        self.problems, self.bins, self.dtype, self.device = list(problems), bins, dtype, torch.device(device)
        self.box = tuple(max(p.log.shape[axis] for p in problems) for axis in range(3))
        log, weight = (np.zeros((len(problems), *self.box), np.float32) for _ in range(2))
        for k, problem in enumerate(problems):
            inside = tuple(slice(n) for n in problem.log.shape)
            log[k][inside] = problem.log - problem.log[problem.weight > 0].mean(dtype=np.float64).astype(np.float32)
            weight[k][inside] = problem.weight
        self.log, self.weight = (torch.from_numpy(a).to(self.device, dtype) for a in (log, weight))
        self.inside = self.weight > 0
        self.count = self.inside.sum((1, 2, 3)).double()
        self.itk_range, self.itk_convergence = itk_range, itk_convergence
        self.first_bin = (torch.arange(len(problems), device=self.device) * bins)[:, None]

    def start_level(self, phi: torch.Tensor, bases) -> torch.Tensor:
        """As :meth:`SlabVoxels.start_level`, for B scans."""
        cubes, squares = zip(*(_fit_bases(each) for each in bases), strict=True)
        self.evaluating, self.fitting, squares = (self._stack(each) for each in (bases, cubes, squares))
        self.u = self.log - self._expand(phi.to(self.dtype))
        return _inverse(self._contract(self.weight, squares).double())

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest u in each mask, (B,) each, float64."""
        low = torch.where(self.inside, self.u, torch.inf).amin((1, 2, 3))
        high = torch.where(self.inside, self.u, -torch.inf).amax((1, 2, 3))
        self.used = self.inside
        if self.itk_range:
            for scan in range(len(self.problems)):
                voxels = self._in_itk_order(self.u, scan)
                if voxels[0] == low[scan]:
                    low[scan] = _itk_low(voxels.cpu()).to(self.device)
            self.used = self.inside & (self.u >= low[:, None, None, None])
        return low.double(), high.double()

    def histogram(self, low: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """As :meth:`SlabVoxels.histogram`: (B, bins), float64."""
        scans = len(self.problems)
        position = ((self.u.view(scans, -1) - low[:, None].to(self.dtype)) / step[:, None].to(self.dtype)).clamp_(
            0, self.bins - 1
        )
        self.index = position.long()
        self.fraction = position - self.index
        inside = self.used.view(scans, -1).long()
        upper = (self.fraction.double() * FIXED_POINT).long() * inside
        bins = torch.zeros(2, scans * self.bins, dtype=torch.int64, device=self.device)
        place = (self.index + self.first_bin).view(-1)
        bins[0].index_add_(0, place, inside.view(-1))
        bins[1].index_add_(0, place, upper.view(-1))
        number, share = bins[0].double().view(scans, -1), bins[1].double().view(scans, -1) / FIXED_POINT
        histogram = number - share
        histogram[:, 1:] += share[:, :-1]
        return histogram

    def fit(self, table: torch.Tensor, low: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """As :meth:`SlabVoxels.fit`: (B, i, j, k)."""
        slope = torch.nn.functional.pad(table[:, 1:] - table[:, :-1], (0, 1)).to(self.dtype)
        sharpened = torch.gather(table.to(self.dtype), 1, self.index)
        sharpened += torch.gather(slope, 1, self.index) * self.fraction
        sharpened = sharpened.view(self.u.shape)
        if self.itk_range:
            sharpened = torch.where(self.used, sharpened, table[:, -1, None, None, None].to(self.dtype))
        return self._contract((self.u - sharpened) * self.weight, self.fitting)

    def update(self, change: torch.Tensor, tolerance: float, last: bool) -> torch.Tensor | None:
        """As :meth:`SlabVoxels.update`: (B,), or None if no tolerance above 0 can have been reached."""
        difference = self._expand(change.to(self.dtype))
        self.u -= difference
        if tolerance <= 0 and not last:
            return None
        ratio = torch.expm1(difference).double() * self.inside
        variation = _variation(ratio.sum((1, 2, 3)), (ratio * ratio).sum((1, 2, 3)), self.count)
        if self.itk_convergence:
            for scan, (value, count) in enumerate(zip(variation.tolist(), self.count.tolist(), strict=True)):
                if 0 < value <= tolerance * itk_reach(int(count)):
                    variation[scan] = _itk_variation(self._in_itk_order(difference, scan))
        return variation

    def _in_itk_order(self, array: torch.Tensor, scan: int) -> torch.Tensor:
        """One scan's voxels in the mask, first axis fastest."""
        return array[scan].permute(2, 1, 0)[self.inside[scan].permute(2, 1, 0)]

    def _stack(self, bases) -> list[torch.Tensor]:
        """One matrix (B, n, k) per axis; scans smaller than the box get rows of zeros."""
        stacked = []
        for axis, n in enumerate(self.box):
            rows = [np.pad(scan[axis], ((0, n - len(scan[axis])), (0, 0))) for scan in bases]
            stacked.append(torch.from_numpy(np.stack(rows)).to(self.device, self.dtype))
        return stacked

    def _expand(self, control: torch.Tensor) -> torch.Tensor:
        bx, by, bz = self.evaluating
        values = torch.einsum("byj,bxjk->bxyk", by, torch.einsum("bxi,bijk->bxjk", bx, control))
        return (values.flatten(1, 2) @ bz.mT).view(-1, *self.box)

    def _contract(self, array: torch.Tensor, bases) -> torch.Tensor:
        bx, by, bz = bases
        values = (array.flatten(1, 2) @ bz).view(-1, self.box[0], self.box[1], bz.shape[2])
        return torch.einsum("bxi,bxjk->bijk", bx, torch.einsum("byj,bxyk->bxjk", by, values))


def _itk_variation(difference: torch.Tensor) -> float:
    """ITK's measure of a change of the log bias, voxels in its order."""
    return itk_variation(np.exp(-difference.float().cpu().numpy()))


def _expm1(x: torch.Tensor, bound: float) -> torch.Tensor:
    """exp(x) - 1 for |x| <= bound, to about 1e-7: its series, which is many times faster than the function."""
    terms, rest = 1, bound / 2
    while rest > 1e-7 and terms < 8:
        terms += 1
        rest *= bound / (terms + 1)
    if rest > 1e-7:
        return torch.expm1(x)
    one = torch.ones((), dtype=x.dtype)
    series = one
    for k in range(terms, 1, -1):
        series = torch.addcmul(one, x, series, value=1 / k)
    return x * series


def _variation(first: torch.Tensor, second: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Coefficient of variation of 1 + r, from the sums of r and of r^2 over ``count`` voxels; (B,), float64."""
    variance = (second - first * first / count) / (count - 1).clamp(min=1)
    return variance.clamp(min=0).sqrt() / (1 + first / count)
