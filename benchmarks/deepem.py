"""What each part of deepem is worth: residual CoV of its variants, by group of scans.

    python benchmarks/deepem.py --labels DIR [--lesjak DIR] [--heads DIR] [--stripped DIR] [--limit N] [--out FILE]

DIR are folders as benchmarks/leaderboard.py takes them (--stripped: images without anything outside the brain).
Simulated heads are scored against their true fields, in the brain and (outside) in the rest of the head; of real
scans, pairs: estimate(v k) against estimate(v) k.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from biascorr_pydra.bench import Sources
from biascorr_pydra.bench.case import Case
from biascorr_pydra.bench.find import plan_cases
from biascorr_pydra.correction.estimate import estimate
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.methods.deepem import pure_tissue
from biascorr_pydra.methods.deepem.corrector import N4_ITERATIONS, DeepEM, head_of
from biascorr_pydra.methods.deepem.networks import MIXED
from biascorr_pydra.metrics import residual_cov, response_slope
from biascorr_pydra.simulation.heads import inject_bias

LEAST_OUTSIDE = 2000  # voxels, for the field outside the brain to be scored


@dataclass(frozen=True)
class Variant:
    """A corrector, and whether it is given the true brain."""

    corrector: Corrector
    masked: bool = False


@dataclass(frozen=True)
class Unguided(DeepEM):
    """Nothing to follow far from the brain."""

    def _guide(self, scan: Scan, head: torch.Tensor, brain: torch.Tensor, device: str):
        return None


@dataclass(frozen=True)
class Without(DeepEM):
    """deepem without its second network or without its fit."""

    part: str = "fit"

    def _pure(self, networks, image, prior, brain, log_bias, *contexts) -> torch.Tensor:
        if self.part != "network":
            return super()._pure(networks, image, prior, brain, log_bias, *contexts)
        after = pure_tissue.posterior(pure_tissue.log_intensity(image, brain, log_bias), prior)
        kept = agreed(after.argmax(0))
        probability = torch.zeros((len(after) + 1, *image.shape))
        return probability.scatter_(0, kept[None], 1.0)

    def estimate_with(self, networks, scan: Scan, *, device: str = "cpu") -> Estimate:
        if self.part != "fit":
            return super().estimate_with(networks, scan, device=device)
        brain = self.brain(networks, scan, device=device)
        head, first, last = head_of(scan)
        n4 = get_corrector("n4").from_options(iterations=N4_ITERATIONS)
        spline = n4.estimate(replace(head, mask=brain.numpy()), device=device).log_bias
        places = [np.interp(end, (0, n - 1), ends) for end, n, ends in self._ends(spline, head, first, last)]
        return Estimate(replace(spline, first=tuple(places[:3]), last=tuple(places[3:])))

    @staticmethod
    def _ends(spline, head: Scan, first, last) -> list[tuple]:
        """Each end of the mesh on the head's grid, that grid's size, and where its ends lie on the scan's."""
        axes = list(zip(head.data.shape, zip(first, last, strict=True), strict=True))
        return [(end[k], *axes[k]) for end in (spline.first, spline.last) for k in range(3)]


class OneTier(DeepEM):
    """Voxels of a class have one mean and spread, however sure they are."""

    tiers = 1


class NoFurther(DeepEM):
    """The last round's field as it is."""

    further = 0.0


class Fixed(DeepEM):
    """Smoothness as it is given, whatever the field."""

    usual = None


def agreed(classes: torch.Tensor) -> torch.Tensor:
    """Classes, of which those of the brain are MIXED beside another class."""
    same = torch.ones_like(classes, dtype=torch.bool)
    for axis in range(3):
        equal = torch.diff(classes, dim=axis) == 0
        n = classes.shape[axis]
        same.narrow(axis, 1, n - 1).logical_and_(equal)
        same.narrow(axis, 0, n - 1).logical_and_(equal)
    return torch.where((classes == 0) | same, classes, MIXED)


def variants() -> dict[str, Variant]:
    n4 = get_corrector("n4").from_options()
    return {
        "n4": Variant(n4),
        "n4 in the true brain": Variant(n4, masked=True),
        "n4 in the learned brain": Variant(Without(part="fit")),
        "fit, pure voxels by agreement of neighbours, no second network": Variant(Without(part="network")),
        "deepem": Variant(DeepEM()),
        "deepem in the true brain": Variant(DeepEM(), masked=True),
        "1 round": Variant(DeepEM(rounds=1)),
        "3 rounds": Variant(DeepEM(rounds=3)),
        "6 control points per axis": Variant(DeepEM(points=6)),
        "12 control points per axis": Variant(DeepEM(points=12)),
        "smoothness 1e-4, whatever the field": Variant(Fixed(smoothness=1e-4)),
        "smoothness 1e-5, whatever the field": Variant(Fixed(smoothness=1e-5)),
        "smoothness 1e-6, whatever the field": Variant(Fixed(smoothness=1e-6)),
        "sure 0.5": Variant(DeepEM(sure=0.5)),
        "one group per class": Variant(OneTier()),
        "no step further": Variant(NoFurther()),
        "not guided outside the brain": Variant(Unguided()),
    }


def group_of(case: Case) -> str:
    facts = case.facts
    if case.log_bias is None:
        return f"{facts['dataset']}, pairs"
    return f"simulated {facts['head']}, {facts['field']}"


def rows(cases: Iterator, chosen: dict[str, Variant], tell: Callable[[str], None]) -> Iterator[dict]:
    for planned in cases:
        case = planned.make()
        for name, variant in chosen.items():
            try:
                log_bias, k = (
                    estimate(variant.corrector, case.affine, case.scan(variant.masked, data), device="cpu", seed=0)[0]
                    for data in (case.data, inject_bias(case.data, case.log_k))
                )
            except ValueError as error:
                tell(f"{name}: {case.facts['scan']}: {error}")
                continue
            estimated, truth = (k - log_bias, case.log_k) if case.log_bias is None else (log_bias, case.log_bias)
            row = {
                "group": group_of(case),
                "variant": name,
                "scan": case.facts["scan"],
                "contrast": case.facts["contrast"],
            }
            row["before"] = residual_cov(np.ones_like(truth), np.exp(truth), case.brain)
            row["residual_cov"] = residual_cov(np.exp(estimated), np.exp(truth), case.brain)
            row["slope"] = response_slope(k - log_bias, case.log_k, case.brain)
            outside = detect_head(case.data) & ~ndimage.binary_dilation(case.brain, iterations=2)
            if case.log_bias is not None and outside.sum() > LEAST_OUTSIDE:
                row["outside"] = residual_cov(np.exp(log_bias), np.exp(truth), outside)
            yield row
        tell(f"{case.facts['dataset']} {case.facts['scan']} {case.facts['contrast']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("labels", "heads", "lesjak", "stripped"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--variant", action="append", help="repeatable; all by default")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    chosen = {name: v for name, v in variants().items() if not options.variant or name in options.variant}
    select = {
        "labels": {"select": ["seg_17.*", "seg_18.*"]},
        "heads": {"select": ["*_T1w.nii.gz", "*_T1fs_*", "ch2.nii.gz"], "contrast": "T1w"},
        "lesjak": {"select": ["study*"]},
        "stripped": {"contrast": "T1w"},
    }
    measured = []
    for name, more in select.items():
        if folder := getattr(options, name):
            sources = Sources(data=[folder], limit=options.limit, seed=options.seed, **more)
            measured += rows(plan_cases(sources), chosen, lambda line: print(line, flush=True))
    table = pd.DataFrame(measured)
    if options.out:
        table.to_csv(options.out, sep="\t", index=False)
    for values in ("residual_cov", "slope", "outside"):
        if values in table:
            print(f"\n{values}")
            means = table.pivot_table(index="variant", columns="group", values=values, aggfunc="mean", sort=False)
            print(means.round(4).to_string())


if __name__ == "__main__":
    main()
