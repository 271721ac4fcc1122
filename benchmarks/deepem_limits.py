"""Where deepem ends: simulated heads with one thing changed at a time, deepem and N4 (without any mask) beside it.

    python benchmarks/deepem_limits.py --labels DIR [--fetal DIR] [--draws N]

Label maps are those that nothing was trained on (seg_17, seg_18). Residual CoV, mean of the heads and worst head.
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

from biascorr_pydra.correction.estimate import estimate
from biascorr_pydra.images import nifti
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.metrics import residual_cov
from biascorr_pydra.simulation.heads import (
    FIRST_EXTRA_CEREBRAL,
    GROUPS,
    HeadParameters,
    HeadSampler,
    SimulatedHead,
    load_label_map,
    simulate_head,
)

SHAPE = (160, 160, 160)
VOXEL_MM = 1.3
METHODS = ("n4", "deepem")
# White matter, brainstem, gray matter, limbic, thalamus and pallidum, striatum, CSF.
PDW = (0.62, 0.64, 0.80, 0.80, 0.70, 0.76, 0.95)
WHITE, SULCI = 2, 24
CORE, RIM, EDEMA = 90, 91, 92  # numbers that no label map uses
INFANT_T1W = (0.50, 0.60, 0.62, 0.60, 0.66, 0.62, 0.25)  # 6 months: white matter is not brighter than gray


@dataclass(frozen=True)
class Change:
    """What is sampled, what is changed in its parameters or labels, and what is done to the image (slices, view)."""

    contrast: str = "T1w"
    sampler: dict | None = None
    means: tuple[float, ...] | None = None
    single: dict[int, float] | None = None  # means by label
    outside: float = 1.0  # factor for tissue outside the brain
    labels: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    after: Callable[[torch.Tensor], torch.Tensor] = lambda x: x


def thick(n: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Slices as thick as n voxels, from top to bottom."""
    return lambda x: x.unfold(2, n, n).mean(-1)


def lower_cut(share: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x[:, :, int(share * x.shape[2]) :]


def _ball(labels: torch.Tensor, centre: torch.Tensor, radius: float) -> torch.Tensor:
    axes = torch.meshgrid(*(torch.arange(n) - c for n, c in zip(labels.shape, centre, strict=True)), indexing="ij")
    return sum(axis**2 for axis in axes) <= radius**2


def tumour(labels: torch.Tensor) -> torch.Tensor:
    """A dark core of 32 mm with a rim of 4 mm, in edema of 64 mm, in the middle of the left white matter."""
    labels = labels.clone()
    centre = torch.nonzero(labels == WHITE).float().median(0).values
    brain = (labels > 0) & (labels < FIRST_EXTRA_CEREBRAL)
    labels[_ball(labels, centre, 32) & (labels == WHITE)] = EDEMA
    for radius, label in ((20, RIM), (16, CORE)):
        labels[_ball(labels, centre, radius) & brain] = label
    return labels


def atrophy(labels: torch.Tensor) -> torch.Tensor:
    """Ventricles 5 mm larger on all sides, and cortex a millimetre thinner."""
    grown = labels.numpy().copy()
    ventricles = ndimage.binary_dilation(np.isin(grown, (4, 43)), iterations=5)
    grown[ventricles & np.isin(grown, (2, 41, 10, 49, 11, 50))] = 4
    grown[ndimage.binary_dilation(grown == SULCI) & np.isin(grown, (3, 42))] = SULCI
    return torch.from_numpy(grown)


CHANGES = {
    "T1w": Change(),
    "T2w": Change("T2w"),
    "FLAIR": Change("FLAIR"),
    "PDw": Change("T2w", means=PDW),
    "T1w, no contrast of WM and GM (infant-like)": Change("T1w", means=INFANT_T1W),
    "random contrast": Change("random"),
    "T1w, contrast agent: vessels, sulci, tissue outside the brain": Change(
        single={30: 1.4, 62: 1.4, SULCI: 0.4}, outside=1.6
    ),
    "T1w, tumour of 40 mm with a bright rim": Change(single={CORE: 0.3, RIM: 1.3, EDEMA: 0.65}, labels=tumour),
    "T1w, atrophy": Change(labels=atrophy),
    "T1w stripped": Change(sampler={"stripped": 1.0}),
    "T1w, slices of 2.6 mm": Change(after=thick(2)),
    "T1w, slices of 5.2 mm": Change(after=thick(4)),
    "T1w, lower third of the view cut off": Change(after=lower_cut(0.33)),
    "T1w, noise 8%": Change(sampler={"noise": (0.08, 0.08)}),
    "T1w, turned by up to 45 degrees": Change(sampler={"max_rotation_degrees": 45}),
    "T1w, field sd 0.4 of the log, rough (7T-like)": Change(sampler={"field_sd": (0.4, 0.4), "field_spans": (3, 4)}),
    "T1w, field sd 0.6 of the log, rough": Change(sampler={"field_sd": (0.6, 0.6), "field_spans": (3, 4)}),
}
USUAL = {"stripped": 0.0, "field_sd": (0.15, 0.15), "field_spans": (2, 3), "noise": (0.02, 0.02)}


def head_of(labels: torch.Tensor, change: Change, seed: int) -> SimulatedHead:
    sampler = HeadSampler(contrasts=(change.contrast,), **(USUAL | (change.sampler or {})))
    parameters: HeadParameters = sampler.sample(torch.Generator().manual_seed(seed))
    means = parameters.means.clone()
    for group, mean in zip(GROUPS.values(), change.means or (), strict=bool(change.means)):
        means[list(group)] = mean
    for label, mean in (change.single or {}).items():
        means[label] = mean
    means[FIRST_EXTRA_CEREBRAL:] *= change.outside
    return simulate_head(change.labels(labels), replace(parameters, means=means), SHAPE)


def rows(files: list[Path], draws: int) -> Iterator[dict]:
    correctors = {name: get_corrector(name).from_options() for name in METHODS}
    for file in files:
        labels = load_label_map(file, voxel_size_mm=1.0)
        for name, change in CHANGES.items():
            for seed in range(200, 200 + draws):
                head = head_of(labels, change, seed)
                data, log_bias = (change.after(x).numpy() for x in (head.image, head.log_bias))
                brain = change.after(head.brain.float()).numpy() > 0.5
                size = [VOXEL_MM * n / m for n, m in zip(SHAPE, data.shape, strict=True)]
                size[2] = VOXEL_MM * (SHAPE[2] // data.shape[2])
                scan = Scan(np.ascontiguousarray(data), np.ones(data.shape, bool), None, tuple(size))
                row = {"what": name, "before": residual_cov(np.ones_like(log_bias), np.exp(log_bias), brain)}
                for method, corrector in correctors.items():
                    row[method] = scored(corrector, scan, log_bias, brain)
                yield row


def scored(corrector, scan: Scan, log_bias: np.ndarray, brain: np.ndarray) -> float:
    """Residual CoV; NaN where the method refuses the image."""
    try:
        estimated, _ = estimate(corrector, np.diag([*scan.voxel_size_mm, 1.0]), scan, device="cpu", seed=0)
    except ValueError:
        return np.nan
    return residual_cov(np.exp(estimated), np.exp(log_bias), brain)


def fetal(folder: Path) -> None:
    """What becomes of images that no network was made for."""
    for file in sorted(folder.rglob("*_T2w.nii.gz")):
        img = nifti.load(file)
        data, valid, _ = nifti.inspect(img)
        scan = Scan(data, valid, None, nifti.voxel_size_mm(img))
        try:
            _, record = estimate(get_corrector("deepem").from_options(), img.affine, scan, device="cpu", seed=0)
            print(f"{file.name}: corrected, {record}")
        except ValueError as error:
            print(f"{file.name}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--fetal", type=Path)
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    files = [options.labels / f"seg_{n}.nii.gz" for n in (17, 18)]
    table = pd.DataFrame(rows(files, options.draws))
    by_limit = table.groupby("what", sort=False)
    summary = by_limit[["before", *METHODS]].mean()
    for method in METHODS:
        summary[f"worst {method}"] = by_limit[method].max()
        summary[f"{method} refused"] = by_limit[method].apply(lambda values: int(values.isna().sum()))
    summary.insert(0, "heads", by_limit.size())
    print(summary.round(3).to_string())
    if options.fetal:
        fetal(options.fetal)


if __name__ == "__main__":
    main()
