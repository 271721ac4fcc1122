"""deepem: two small networks find tissue in any contrast; the field is what makes each tissue equally bright.

1. A network tells where each class of tissue is expected (:class:`.networks.TissuePrior`), and
   so where the brain is.
2. Exact N4 in that brain gives a first field.
3. Joint histograms of each class give posterior probabilities: the contrast comes from the image
   (:mod:`biascorr_pydra.methods.deepem.pure_tissue`).
4. A second network, which sees probabilities, says how surely a voxel is purely of one class.
5. Means of groups of equally sure voxels and control points follow in closed form (:mod:`._tissue_fit`), guided far
   from the brain by exact N4's field of the head. Steps 3 to 5 are repeated.

The networks never see a true field, and never give one: they only name tissue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import ClassVar, cast

import numpy as np
import torch
from torch.nn import functional

from biascorr_pydra import weights
from biascorr_pydra.errors import InvalidImageError, InvalidParameterError
from biascorr_pydra.images.canonical import crop, uncrop
from biascorr_pydra.images.field import LogBiasSpline, evaluate_tensor
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.methods.inner import inner_corrector
from biascorr_pydra.methods.reference import SOFTWARE, Reference

from . import pure_tissue
from .fit import Guide, Solution, fit_classes, guide, mesh_over
from .networks import MIXED, TissueNetworks

__all__ = ["CORRECTOR", "DeepEM", "head_of"]

LEAST_BRAIN = 3000  # voxels of the grid: a third of a percent
LEAST_PURE = 500
# Brainstem, thalamus and pallidum, striatum: their least expected share of the brain. In heads of adults, real and
# simulated, it was 0.020 to 0.054, in two fetal stacks 0.005 and 0.007.
DEEP, LEAST_DEEP = (2, 5, 6), 0.012
# A level less than usual: the mesh spans the head alone, and what follows finds the details.
N4_ITERATIONS = (50, 50, 50)
ROBUST_ROUNDS = 3
# N4 guides the field so many voxels (of 2 to 3 mm) from the brain on; a voxel there weighs so much of one in the brain.
GUIDED_FROM, GUIDED = 6, 0.01
MARGIN = 0.1  # around the head, of its extent
DARKEST = 1e-3
NEXT = "This method is for anatomical MRI of adults' heads: use method n4, or name it as the fallback."


@dataclass(frozen=True)
class DeepEM(Corrector):
    """Fields from tissue that networks name."""

    points: int = field(default=8, metadata={"help": "Control points of the field per axis, 4 to 12."})
    smoothness: float = field(
        default=3e-5,
        metadata={
            "help": "Weight of the squared second differences of the control points, for a field that is as rough as "
            "usual; up to 3 times as much for a smoother one, down to a 30th for a rougher one."
        },
    )
    rounds: int = field(default=2, metadata={"help": "Times that tissue and field are found in turn, 1 to 5."})
    sure: float = field(default=0.2, metadata={"help": "Voxels count as pure from this probability on, 0.05 to 0.99."})
    weights_file: str | None = field(
        default=None,
        metadata={"help": "Weights (.safetensors, with the card beside it) to use instead of the package's own."},
    )

    name: ClassVar[str] = "deepem"
    version: ClassVar[str] = "3"
    summary: ClassVar[str] = "our own: networks name pure tissue in any contrast, a closed-form fit evens it out"
    references: ClassVar[tuple[Reference, ...]] = (SOFTWARE,)  # no paper yet
    runs: ClassVar[tuple[str, ...]] = ("n4",)
    grid_shape: ClassVar[tuple[int, int, int]] = (128, 128, 128)
    weights: ClassVar[str] = "deepem"
    memory_gb: ClassVar[float] = 1.1
    invents: ClassVar[float] = 0.03
    takes_series: ClassVar[bool] = False  # no series of known field were at hand
    tiers: ClassVar[int] = 4  # of sureness
    usual: ClassVar[float | None] = 0.33  # sum of the squared second differences
    further: ClassVar[float] = 0.3  # of the last round's step: about what all further rounds would add

    def __post_init__(self):
        for name, low, high in (("points", 4, 12), ("rounds", 1, 5)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InvalidParameterError(f"{name} is a whole number from {low} to {high}", value=repr(value))
        for name, least, most in (("smoothness", 0, 1), ("sure", 0.05, 0.99)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise InvalidParameterError(f"{name} lies between {least} and {most}", value=repr(value))

    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        """Estimate the log bias field, as control points of a cubic B-spline over the grid. ``seed`` changes nothing.

        Raises
        ------
        InvalidImageError
            No brain is found, or none with an adult's deep nuclei, or too few voxels that are purely of one tissue.
        WeightsError
            The weights are missing, damaged, or another network's.
        """
        source = self.weights_file or type(self).weights
        sha256 = weights.sha256_of(source)
        estimated = self.estimate_with(_networks(source, sha256, device), scan, device=device)
        return replace(estimated, record={"weights_sha256": sha256, **estimated.record})

    def estimate_with(self, networks: TissueNetworks, scan: Scan, *, device: str = "cpu") -> Estimate:
        """:meth:`estimate` with networks in memory, in evaluation mode on the device."""
        with torch.inference_mode(), _threads(1) as threads:
            around, many = partial(_around, device, threads), partial(_threads, threads)
            shape = scan.data.shape
            scan, first, last = head_of(scan)
            image = torch.from_numpy(scan.data).to(device)
            head = torch.from_numpy(detect_head(scan.data)).to(device)
            prior = self._expected(networks, scan, head, device, around)
            brain = prior[0] < 0.5
            _enough(int(brain.sum()), LEAST_BRAIN, "a brain is found in the image")
            deep = float(prior[list(DEEP)][:, brain].sum(0).mean())
            if deep < LEAST_DEEP:
                raise InvalidImageError(
                    "brainstem, thalamus and striatum are found in the brain",
                    value=f"expected share {deep:.3f}, at least {LEAST_DEEP} wanted",
                    next_step=NEXT,
                )
            log_bias = self.first_field(scan, brain, device)
            guided = self._guide(scan, head, brain, device)
            bases = mesh_over(tuple(image.shape), self.points, str(image.device)).bases
            points = []
            for _ in range(self.rounds):
                pure = self._pure(networks, image, prior, brain, log_bias, around, many)
                solution, used = self._fit(image, pure, brain, log_bias, guided)
                points.append(solution.control_points)
                log_bias = evaluate_tensor(points[-1], bases).float()
            step = points[-1] - points[-2] if self.rounds > 1 else 0.0
            control_points = points[-1] + self.further * step
        record = {
            "control_points": [self.points] * 3,
            "brain_share": float(brain.float().mean()),
            "pure_voxels": used,
            "residual_sd": round(float(solution.deviations.median()), 4),
        }
        spline = LogBiasSpline(control_points.cpu().numpy(), first, last)
        return Estimate(spline, record, uncrop(brain.cpu().numpy(), first, last, shape))

    def brain(self, networks: TissueNetworks, scan: Scan, *, device: str = "cpu") -> torch.Tensor:
        """Where the first network finds the brain, on the grid that the method works on."""
        with torch.inference_mode(), _threads(1) as threads:
            scan, _, _ = head_of(scan)
            head = torch.from_numpy(detect_head(scan.data)).to(device)
            return self._expected(networks, scan, head, device, partial(_around, device, threads))[0] < 0.5

    def first_field(self, scan: Scan, brain: torch.Tensor, device: str) -> torch.Tensor:
        """Exact N4's log field in the brain, on the scan's grid."""
        inside = replace(scan, mask=brain.cpu().numpy(), weight=None)
        estimate = inner_corrector(self, "n4", iterations=N4_ITERATIONS).estimate(inside, device=device)
        return _field_of(estimate, scan, device)

    def _expected(self, networks, scan: Scan, head: torch.Tensor, device: str, around) -> torch.Tensor:
        """Prior probabilities of the classes."""
        prior = pure_tissue.expected(networks.prior, torch.from_numpy(scan.data).to(device)[None], around)[0]
        if scan.mask is not None:
            return _within(prior, torch.from_numpy(scan.mask).to(device), known=True)
        # Air is none of what the networks learnt; what they say of it means nothing.
        return _within(prior, head, known=False)

    def _pure(self, networks, image, prior, brain, log_bias, around, threads) -> torch.Tensor:
        return pure_tissue.pure_probability(networks.pure, image, prior, brain, log_bias, around, threads)

    def _guide(self, scan: Scan, head: torch.Tensor, brain: torch.Tensor, device: str) -> Guide | None:
        """What exact N4 finds in the whole head, where it is far from the brain; of a stripped one, nothing."""
        far = head & ~_grown(brain, GUIDED_FROM)
        if not far.any():
            return None
        estimated = inner_corrector(self, "n4").estimate(replace(scan, mask=None), device=device)
        log_field = _field_of(estimated, scan, device)
        weight = GUIDED * float(far.sum()) / int(brain.sum())
        return guide(log_field, far, points=self.points, weight=weight)

    def _fit(
        self, image: torch.Tensor, pure: torch.Tensor, brain: torch.Tensor, log_bias, guided: Guide | None
    ) -> tuple[Solution, int]:
        probability, classes = pure[1:MIXED].max(0)
        inside = (probability > self.sure) & brain & (image > 0)
        # Voxels of one tissue that are less sure lie beside others, all alike: they get a mean and a spread of their
        # own, and so count as much as they agree.
        tier = ((probability - self.sure) / (1 - self.sure) * self.tiers).long().clamp(0, self.tiers - 1)
        groups = torch.where(inside, classes * self.tiers + tier + 1, 0)
        used = int(inside.sum())
        _enough(used, LEAST_PURE, "enough voxels are found that are purely of one tissue")
        log_image = torch.log(image.clamp(min=DARKEST * image[brain].mean()))
        solution = fit_classes(
            log_image,
            groups,
            probability,
            points=self.points,
            smoothness=self.smoothness,
            usual=self.usual,
            start=log_bias,
            rounds=ROBUST_ROUNDS,
            guided=guided,
        )
        return solution, used


def _field_of(estimate: Estimate, scan: Scan, device: str) -> torch.Tensor:
    spline = cast(LogBiasSpline, estimate.log_bias)  # N4 gives no other
    return torch.from_numpy(spline.on_grid(scan.data.shape)).to(device)


def head_of(scan: Scan) -> tuple[Scan, tuple[float, float, float], tuple[float, float, float]]:
    """The head and a margin on the networks' grid, and where its first and last samples lie on the scan's."""
    data = np.clip(scan.data, 0, None)
    if not (data > 0).any():
        raise InvalidImageError("the image has positive voxels", value="none")
    head = detect_head(data)
    ends = []
    for axis, n in enumerate(head.shape):
        places = np.flatnonzero(head.any(tuple(other for other in range(3) if other != axis)))
        margin = MARGIN * (places[-1] - places[0])
        ends.append((max(places[0] - margin, 0.0), min(places[-1] + margin, n - 1.0)))
    i, j, k = [(float(first), float(last)) for first, last in ends]
    first, last = (i[0], j[0], k[0]), (i[1], j[1], k[1])
    shape = (pure_tissue.SIZE,) * 3
    mask = None if scan.mask is None else crop(scan.mask, first, last, shape) >= 0.5
    share = [(b - a) / (n - 1) for a, b, n in zip(first, last, head.shape, strict=True)]
    size = [s * x * (n - 1) / (m - 1) for s, x, n, m in zip(scan.voxel_size_mm, share, head.shape, shape, strict=True)]
    return Scan(crop(data, first, last, shape), np.ones(shape, bool), mask, tuple(size)), first, last


def _within(prior: torch.Tensor, mask: torch.Tensor, known: bool) -> torch.Tensor:
    """Prior probabilities if nothing outside the mask is brain; and, where it is known to be the brain, all inside."""
    if known:
        tissue = prior[1:] + 1e-3
        prior = torch.cat([torch.zeros_like(prior[:1]), tissue / tissue.sum(0)])
    return torch.where(mask, prior, torch.eye(len(prior), device=prior.device)[0][:, None, None, None])


def _grown(mask: torch.Tensor, by: int) -> torch.Tensor:
    """The mask and all that is at most so many voxels from it along each axis."""
    grown = mask[None].float()
    for axis in range(3):
        reach = [by if k == axis else 0 for k in range(3)]
        grown = functional.max_pool3d(grown, [2 * n + 1 for n in reach], 1, reach)
    return grown[0] > 0


def _enough(count: int, least: int, rule: str) -> None:
    if count < least:
        raise InvalidImageError(
            rule,
            value=f"{count} of {pure_tissue.SIZE}^3 voxels, at least {least} wanted",
            next_step=NEXT,
        )


@contextmanager
def _threads(count: int) -> Iterator[int]:
    """So many threads; gives how many there were. On one, sums come out the same wherever they are made."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


@contextmanager
def _around(device: str, threads: int) -> Iterator[None]:
    # On processors bfloat16 may be emulated, and slow.
    reduced = torch.autocast("cuda", torch.bfloat16) if device.startswith("cuda") else nullcontext()
    with _threads(threads), reduced:
        yield


@lru_cache(maxsize=4)
def _networks(source: str, sha256: str, device: str) -> TissueNetworks:
    # The hash is part of the key so that weights that change on disk are read again.
    networks = TissueNetworks()
    weights.load_network(networks, source)
    # torch declares memory_format for no form of Module.to.
    return networks.folded().to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


CORRECTOR = DeepEM
