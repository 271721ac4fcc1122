"""Does the judge order corrections as the truth does? Concordance by data, contrast and pair, and every wrong order.

    python benchmarks/judge.py --labels DIR [--abide SIM] [--images FILE] --set choose|check|held [--out FILE]

DIR holds label maps that biascorr_pydra.simulation.heads.load_label_map reads; their numbers, the last in each file's
name, say the set: 1 to 8 choose (the judge was made looking at these), 9 to 16 check, above held. SIM was made by
bids_examples/make_abide.py; every third scan belongs to each set. FILE is JSON, for real scans with expert labels: a
list of {"name", "image", "labels", "gm": [...], "wm": [...], "suffix", "set"}.

Truth: the residual CoV of the field in the brain; with labels, the CJV of the labelled tissue. A pair counts where
these differ by more than a fifth. Corrections: none, and those of METHODS; and fields that nobody should want: deepem's
with a rough one added (spoiled), N4's half and one and a half times (half, over), the smoothed image itself (flat).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from field_families import FAMILIES, log_field
from scipy import ndimage

from biascorr_pydra.anatomy.contrast import CONTRAST_ORDER
from biascorr_pydra.correction.divide import divide
from biascorr_pydra.correction.estimate import estimate
from biascorr_pydra.errors import BiasCorrError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.judge import ACQUIRED, CANNOT_TELL
from biascorr_pydra.judge.classes import three_tissues
from biascorr_pydra.judge.judgement import judge_pair
from biascorr_pydra.judge.tissue import Grid, consensus
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.metrics import cjv, residual_cov
from biascorr_pydra.simulation.heads import HeadSampler, load_label_map, simulate_head

SETS = {"choose": range(1, 9), "check": range(9, 17), "held": range(17, 1000)}
CONTRASTS = ("T1w", "T2w", "FLAIR")
#: Name -> method, preset, and whether it is given the brain.
METHODS: dict[str, tuple[str, str | None, bool]] = {
    "n4": ("n4", None, False),
    "n4, mask": ("n4", None, True),
    "n4:antspy": ("n4", "antspy", False),
    "deepem": ("deepem", None, False),
    "ubc": ("ubc", None, True),
}
SLOW: dict[str, tuple[str, str | None, bool]] = {"ants-n4": ("ants-n4", None, True)}
N4_FAMILY = ("n4", "n4, mask", "n4:antspy", "ants-n4")
SPOILED = ("spoiled", "half", "over", "flat")
SHAPE, LABEL_MM = (112, 112, 112), 1.6
DIFFERENT = 1.2  # ratio of two truths from which their order counts
LEAST = 0.0005  # of the larger truth over the smaller: both are nothing


@dataclass(frozen=True)
class Known:
    """A scan of known truth: the log field, or boolean masks (GM, WM) by experts."""

    name: str
    group: str
    suffix: str
    data: np.ndarray
    brain: np.ndarray
    affine: np.ndarray
    log_bias: np.ndarray | None = None
    labelled: tuple[np.ndarray, np.ndarray] | None = None
    seed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def voxel_size_mm(self) -> tuple[float, ...]:
        return tuple(map(float, nib.affines.voxel_sizes(self.affine)))

    def truth(self, log_bias: np.ndarray) -> float:
        """What a correction by this field leaves; lower is better."""
        if self.log_bias is not None:
            return residual_cov(np.exp(log_bias), np.exp(self.log_bias), self.brain)
        assert self.labelled is not None
        return cjv(divide(self.data, np.exp(log_bias)), *self.labelled)


# --- scans


def heads(folder: Path, which: str) -> Iterator[Known]:
    """Every contrast with every family of fields, whole and stripped in turn."""
    numbers = {int(re.findall(r"\d+", path.name.split(".")[0])[-1]): path for path in folder.glob("*.nii*")}
    maps = [numbers[n] for n in sorted(numbers) if n in SETS[which]]
    for f, family in enumerate(FAMILIES):
        for c, contrast in enumerate(CONTRASTS):
            path = maps[(f + 3 * c) % len(maps)]
            yield _head(path, contrast, bool((f + c) % 2), family, 1000 * list(SETS).index(which) + 10 * f + c)


def _head(path: Path, contrast: str, stripped: bool, family: str, seed: int) -> Known:
    sampler = HeadSampler(
        contrasts=(contrast,),
        stripped=float(stripped),
        field_sd=(0, 0),
        field_of_view=(1.02, 1.3),
        max_rotation_degrees=10.0,
        noise=(0.0, 0.03),
    )
    parameters = sampler.sample(torch.Generator().manual_seed(seed))
    labels = load_label_map(path, voxel_size_mm=LABEL_MM)
    head = simulate_head(labels, parameters, SHAPE)
    sizes = [LABEL_MM * n * view / m for n, view, m in zip(labels.shape, parameters.field_of_view, SHAPE, strict=True)]
    rng = np.random.default_rng(seed)
    log_bias = log_field(family, head.labels.numpy() > 0, sizes, rng)
    noise = rng.normal(scale=max(parameters.noise, 1e-6), size=(2, *SHAPE))
    data = np.hypot(head.clean.numpy() * np.exp(log_bias) + noise[0], noise[1])
    brain = head.brain.numpy()
    if stripped:
        data = data * ndimage.binary_dilation(brain)
    name = f"{path.name.split('.')[0]} {'stripped' if stripped else 'whole'} {family}"
    affine = np.diag([*sizes, 1.0])
    return Known(name, f"heads {contrast}", contrast, data.astype(np.float32), brain, affine, log_bias, seed=seed)


def abide(folder: Path, which: str) -> Iterator[Known]:
    """Every third scan of a simulated ABIDE."""
    scans = sorted((folder / "RawDataBIDS").glob("*/sub-*/anat/*_T1w.nii.gz"))
    for i, path in enumerate(scans[list(SETS).index(which) :: 3]):
        truth = folder / "truth" / path.relative_to(folder / "RawDataBIDS").parent
        person = path.name.split("_")[0]
        img = nifti.load(path)
        about = json.loads((truth / f"{person}_desc-T1w_biasfield.json").read_text())
        mask = np.asarray(nifti.load(truth / f"{person}_desc-brain_mask.nii.gz").dataobj) > 0
        spline = LogBiasSpline(np.array(about["LogBiasControlPoints"]), about["MeshFirst"], about["MeshLast"])
        data = img.get_fdata(dtype=np.float32)
        log_bias = spline.on_grid(mask.shape, np.float64)
        yield Known(f"{path.parts[-4]} {person}", "simulated ABIDE", "T1w", data, mask, img.affine, log_bias, seed=i)


def labelled(file: Path, which: str) -> Iterator[Known]:
    """Real scans with expert labels, listed in a file."""
    for i, row in enumerate(json.loads(file.read_text())):
        if row["set"] != which:
            continue
        img, labels = nib.load(row["image"]), np.asarray(nib.load(row["labels"]).dataobj)
        masks = (np.isin(labels, row["gm"]), np.isin(labels, row["wm"]))
        data = img.get_fdata(dtype=np.float32)
        yield Known(
            row["name"], "expert labels", row["suffix"], data, labels > 0, img.affine, labelled=masks, seed=9000 + i
        )


# --- corrections


def corrections(scan: Known, methods: dict[str, tuple[str, str | None, bool]]) -> dict[str, np.ndarray]:
    """Log fields by name, the acquired image's (none) first."""
    fields = {ACQUIRED: np.zeros(scan.data.shape, np.float32)}
    valid = np.isfinite(scan.data)
    for name, (method, preset, masked) in methods.items():
        given = Scan(scan.data, valid, scan.brain if masked else None, scan.voxel_size_mm)
        try:
            corrector = get_corrector(method).from_options(preset)
            fields[name] = estimate(corrector, scan.affine, given, device="cpu", seed=0)[0].astype(np.float32)
        except BiasCorrError as error:
            print(f"{scan.name}: {name} refuses: {error.rule}", flush=True)
    return fields | _spoiled(scan, fields)


def _spoiled(scan: Known, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    points = np.random.default_rng(scan.seed + 77).normal(size=(5, 5, 5))
    rough = LogBiasSpline.spanning(points, scan.data.shape).on_grid(scan.data.shape)
    rough = (rough - rough[scan.brain].mean()) * (0.07 / rough[scan.brain].std())
    sigma = [15 / size for size in scan.voxel_size_mm]
    inside = scan.brain.astype(np.float32)
    log = np.log(np.maximum(scan.data, 1e-3 * np.median(scan.data[scan.brain])))
    flat = ndimage.gaussian_filter(np.where(scan.brain, log, 0), sigma) / np.maximum(
        ndimage.gaussian_filter(inside, sigma), 1e-3
    )
    n4 = fields["n4, mask"]
    spoiled = {"spoiled": fields.get("deepem", n4) + rough, "half": 0.5 * n4, "over": 1.5 * n4}
    spoiled["flat"] = np.where(scan.brain, flat - flat[scan.brain].mean(), 0)
    return {name: values.astype(np.float32) for name, values in spoiled.items()}


# --- judging


def judged(scan: Known, fields: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """A row for each pair of corrections whose truths differ."""
    truths = {name: scan.truth(log_bias) for name, log_bias in fields.items()}
    grid = Grid.over(scan.brain, scan.voxel_size_mm)
    coarse = {name: grid.mean(divide(scan.data, np.exp(log_bias))) for name, log_bias in fields.items()}
    inside = grid.inside & np.all([data > 0 for data in coarse.values()], axis=0)
    order = CONTRAST_ORDER[scan.suffix]
    segmented = {}
    for name, data in coarse.items():
        try:
            segmented[name] = three_tissues(data, inside, order)
        except BiasCorrError as error:
            print(f"{scan.name}: {name} is not segmented: {error.rule}", flush=True)
    for first, second in combinations(fields, 2):
        small, large = sorted((truths[first], truths[second]))
        if large <= DIFFERENT * small or large - small < LEAST:
            continue
        row = {"scan": scan.name, "group": scan.group, "first": first, "second": second}
        row |= {"truth_first": truths[first], "truth_second": truths[second], "verdict": CANNOT_TELL}
        if first in segmented and second in segmented:
            tissue = consensus([segmented[first], segmented[second]], order)
            pair = judge_pair((first, coarse[first]), (second, coarse[second]), tissue, grid)
            row |= {"verdict": pair.verdict, "wm": pair.voxels["WM"], "gm": pair.voxels["GM"]}
            row["change_percent"] = next(iter(pair.changes.values()), (None,))[0]
        row["better"] = first if truths[first] < truths[second] else second
        yield row | {"decided": row["verdict"] in (first, second), "right": row["verdict"] == row["better"]}


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Share decided, and right among these, over several cuts of the pairs."""
    names = rows[["first", "second"]]
    cuts = {"all pairs": names["first"].notna()} | {group: rows["group"] == group for group in rows["group"].unique()}
    real = ~names.isin(SPOILED).any(axis=1)
    cuts["none and methods only"] = real
    cuts |= {f"methods only, {group}": real & (rows["group"] == group) for group in rows["group"].unique()}
    cuts["deepem against n4's"] = names.eq("deepem").any(axis=1) & names.isin(N4_FAMILY).any(axis=1)
    cuts["a method against none"] = real & names.eq(ACQUIRED).any(axis=1)
    cuts["without 'flat'"] = ~names.eq("flat").any(axis=1)
    counted = []
    for name, chosen in cuts.items():
        part = rows[chosen]
        decided = part[part["decided"]]
        share = len(decided) / len(part) if len(part) else np.nan
        right = decided["right"].mean() if len(decided) else np.nan
        counted.append({"pairs": name, "n": len(part), "decided": share, "right": right})
    return pd.DataFrame(counted)


def favour(rows: pd.DataFrame) -> pd.DataFrame:
    """How often each correction is wrongly preferred, and wrongly not, among the decided pairs that it is in."""
    decided = rows[rows["decided"]]
    counted = []
    for name in dict.fromkeys([*rows["first"], *rows["second"]]):
        mine = decided[(decided["first"] == name) | (decided["second"] == name)]
        wrong = mine[~mine["right"].astype(bool)]
        wrongly_for = int((wrong["verdict"] == name).sum())
        wrongly_against = len(wrong) - wrongly_for
        bias = (wrongly_for - wrongly_against) / max(len(mine), 1)
        counted.append(
            {"correction": name, "n": len(mine), "for": wrongly_for, "against": wrongly_against, "bias": bias}
        )
    return pd.DataFrame(counted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--abide", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--set", choices=list(SETS), default="choose", dest="which")
    parser.add_argument("--slow", action="store_true", help="also antspyx's N4")
    parser.add_argument("--out", type=Path, help="all pairs, as TSV")
    options = parser.parse_args()
    sources = ((heads, options.labels), (abide, options.abide), (labelled, options.images))
    methods = METHODS | (SLOW if options.slow else {})
    rows: list[dict[str, Any]] = []
    for source, place in sources:
        for scan in source(place, options.which) if place else ():
            rows += judged(scan, corrections(scan, methods))
            print(f"{scan.name}: {len(rows)} pairs", flush=True)
    pairs = pd.DataFrame(rows)
    if options.out:
        pairs.to_csv(options.out, sep="\t", index=False)
    with pd.option_context("display.max_rows", None, "display.width", 160, "display.float_format", "{:.3f}".format):
        wrong = pairs[pairs["decided"] & ~pairs["right"].astype(bool)]
        print(table(pairs), "\n\n", favour(pairs), "\n\nWrong orders:\n", wrong.drop(columns=["decided", "right"]))


if __name__ == "__main__":
    main()
