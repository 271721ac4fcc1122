"""The N4 iteration: histogram sharpening and scattered-data B-spline fitting, level by level.

Everything here happens on the grid that N4 works on (shrunk, and padded where the B-spline distance asks for it). The
passes over voxels are in :mod:`biascorr_pydra.methods.n4.voxels`; here are the histogram (B, bins) and the lattice
(B, i, j, k), for B scans, and the order of things.

References
----------
Tustison et al. N4ITK: improved N3 bias correction. IEEE TMI 29(6), 2010. doi:10.1109/TMI.2010.2046908
Sled, Zijdenbos, Evans. A nonparametric method for automatic correction of intensity nonuniformity in MRI data.
IEEE TMI 17(1), 1998. doi:10.1109/42.668698
Lee, Wolberg, Shin. Scattered data interpolation with multilevel B-splines. IEEE TVCG 3(3), 1997.
doi:10.1109/2945.620490
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from biascorr_pydra.images.field import DEGREE, refine

from .voxels import BatchVoxels, Problem, SlabVoxels, level_bases

__all__ = ["Level", "Problem", "Settings", "Solution", "one_thread", "run_levels", "sharpening_table", "solve"]

CHECK_EVERY = 10  # iterations between questions to a GPU, since each answer has to be waited for


@dataclass(frozen=True)
class Settings:
    """Parameters of the iteration; see :class:`biascorr_pydra.methods.n4.corrector.N4`."""

    iterations: tuple[int, ...]
    tolerance: float
    fwhm: float
    wiener_noise: float
    bins: int
    max_seconds: float | None = None
    precision: str = "float32"
    itk_range: bool = False
    itk_convergence: bool = False


@dataclass(frozen=True)
class Level:
    """How one level of one scan ended.

    ``convergence`` is the coefficient of variation, over the mask, of the ratio of the last two bias fields, with ITK's
    rounding where that is asked for and could decide; None if the level did not run.
    """

    iterations: int
    convergence: float | None
    converged: bool


@dataclass(frozen=True)
class Solution:
    """The log bias as control points (i, j, k) over the problem's grid, float64, and how each level ended."""

    control_points: np.ndarray
    levels: tuple[Level, ...]
    stopped_by_time: bool


_Progress = Callable[[int, int, Level], None]


def solve(
    problems: Sequence[Problem],
    settings: Settings,
    device: str = "cpu",
    progress: _Progress | None = None,
) -> list[Solution]:
    """Run N4 on scans that share ``mesh``: one after the other on a CPU, together on any other device.

    Parameters
    ----------
    problems : sequence of Problem
    settings : Settings
    device : torch device
    progress : callable, optional
        Called as ``progress(scan, level, Level)`` after each level of each scan, both counted from 0.

    Returns
    -------
    list of Solution, one for each problem
    """
    deadline = math.inf if settings.max_seconds is None else time.monotonic() + settings.max_seconds
    dtype = getattr(torch, settings.precision)
    itk = {"itk_range": settings.itk_range, "itk_convergence": settings.itk_convergence}
    with torch.inference_mode():
        if torch.device(device).type != "cpu":
            return run_levels(BatchVoxels(problems, settings.bins, dtype, device, **itk), settings, deadline, progress)
        solutions = []
        for k, problem in enumerate(problems):
            with one_thread():
                voxels = SlabVoxels(problem, settings.bins, dtype, **itk)
                solutions += run_levels(voxels, settings, deadline, _of_scan(k, progress))
        return solutions


def _of_scan(number: int, progress: _Progress | None) -> _Progress | None:
    """``progress`` of a scan that is run alone and so counted as 0."""
    if progress is None:
        return None
    return lambda _, level, facts: progress(number, level, facts)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch's CPU operators in the calling thread, so that sums have one order; restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_levels(voxels, settings: Settings, deadline: float, progress) -> list[Solution]:
    """All levels of a batch."""
    problems = voxels.problems
    lattices = [np.zeros([n + DEGREE for n in p.mesh]) for p in problems]
    levels: list[list[Level]] = [[] for _ in problems]
    out_of_time = False
    for number, most in enumerate(settings.iterations):
        if number:
            lattices = [refine(lattice) for lattice in lattices]
        if not out_of_time:
            lattices, facts, out_of_time = _level(voxels, lattices, most, settings, deadline)
        else:
            facts = [Level(0, None, False)] * len(problems)
        for k, fact in enumerate(facts):
            levels[k].append(fact)
            if progress:
                progress(k, number, fact)
    return [Solution(lattices[k], tuple(levels[k]), out_of_time) for k in range(len(problems))]


def _level(voxels, lattices, most: int, settings: Settings, deadline: float):
    """One level: lattices (i, j, k) in and out, how it ended for each scan, and whether time ran out."""
    phi = torch.from_numpy(np.stack(lattices)).to(voxels.device)
    inverse = voxels.start_level(phi, [level_bases(p, lattices[0].shape) for p in voxels.problems])
    scans = len(lattices)
    active = torch.ones(scans, dtype=torch.bool, device=voxels.device)
    iterations = torch.zeros(scans, dtype=torch.int64, device=voxels.device)
    convergence = torch.full((scans,), torch.nan, dtype=torch.float64, device=voxels.device)
    out_of_time = False
    for number in range(most):
        low, high = voxels.range()
        step = (high - low) / (settings.bins - 1)
        # A constant image has an empty range; it then lies in the first bin, and nothing is left to sharpen.
        step = torch.where(step > 0, step, torch.ones_like(step))
        table = sharpening_table(voxels.histogram(low, step), low, step, settings.fwhm, settings.wiener_noise)
        change = voxels.fit(table, low, step).double() * inverse
        change *= active[:, None, None, None]
        phi += change
        out_of_time = time.monotonic() > deadline
        last = number == most - 1 or out_of_time
        ratio = voxels.update(change, settings.tolerance, last)
        iterations += active
        if ratio is not None:
            convergence = torch.where(active, ratio, convergence)
            active = active & ~(ratio <= settings.tolerance)
        if last:
            break
        if (voxels.device.type == "cpu" or number % CHECK_EVERY == CHECK_EVERY - 1) and not active.any():
            break
    facts = zip(iterations.tolist(), convergence.tolist(), (~active).tolist(), strict=True)
    return list(phi.cpu().numpy()), [Level(*fact) for fact in facts], out_of_time and bool(active.any())


def sharpening_table(histogram, low, step, fwhm: float, wiener_noise: float) -> torch.Tensor:
    """Expected true log intensity for each bin of observed log intensity (Sled 1998, equations 8 to 12).

    The true histogram is the observed one, deconvolved from a Gaussian by a Wiener filter; the expected true value
    given an observed one follows from Bayes' rule.

    Parameters
    ----------
    histogram : float64 tensor (B, bins)
    low, step : float64 tensor (B,)
        Centre of the first bin and distance between centres, in log intensity.
    fwhm : float
        Full width at half maximum of the Gaussian, in log intensity.
    wiener_noise : float

    Returns
    -------
    float64 tensor (B, bins)
    """
    bins = histogram.shape[1]
    size = 2 ** (math.ceil(math.log2(bins)) + 1)
    offset = (size - bins) // 2
    index = torch.arange(size, dtype=torch.float64, device=histogram.device)
    width = (fwhm / step)[:, None]
    distance = torch.minimum(index, size - index)
    gauss = (2 * math.sqrt(math.log(2) / math.pi)) / width * torch.exp(-4 * math.log(2) * (distance / width) ** 2)
    # An even kernel has a real spectrum.
    blur = torch.fft.rfft(gauss).real
    wiener = blur / (blur * blur + wiener_noise)
    padded = torch.nn.functional.pad(histogram, (offset, size - bins - offset))
    true = torch.fft.irfft(torch.fft.rfft(padded) * wiener, n=size).clamp_(min=0)
    value = low[:, None] + (index - offset) * step[:, None]
    both = torch.stack([true * value, true])
    numerator, denominator = torch.fft.irfft(torch.fft.rfft(both) * blur, n=size)
    expected = torch.where(denominator != 0, numerator / torch.where(denominator != 0, denominator, 1.0), 0.0)
    return expected[:, offset : offset + bins]
