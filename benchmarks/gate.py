"""How often the do-no-harm gate is wrong, how its limits were chosen, and what it costs.

    python benchmarks/gate.py measure --labels FOLDER --only seg_01 ... --out train.tsv
    python benchmarks/gate.py choose train.tsv
    python benchmarks/gate.py calibrate --labels FOLDER --only seg_17 seg_18 [--pairs SCAN ...] --out FOLDER
    python benchmarks/gate.py time SCAN [--methods n4 ubc]

measure    For every head simulated from label maps: the fields that methods find, and absurd ones made from them, each
           with the gate's numbers and with what it does to the brain.
choose     The limits on sharpening and support under which the least non-uniformity is left, over all these heads.
calibrate  Rates of wrong verdicts on scans that the limits were not chosen on, as table and curve.
time       Seconds of the gate beside those of the correction, on one scan.

The truth: a correction helped (or harmed) if the residual coefficient of variation over the brain, std/mean of
estimated / true field, fell (or rose) by more than 0.005 against no correction. What changes less is neither. Real
scans have no known field: SCAN is multiplied by known fields, and what N4 and the others find in the product is
compared with what the same method finds in the scan itself, times the known field.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from biascorr_pydra import image
from biascorr_pydra.correctors import get_corrector
from biascorr_pydra.correctors._base import Scan
from biascorr_pydra.estimation import estimate
from biascorr_pydra.metrics import residual_cov
from biascorr_pydra.quality import field_numbers
from biascorr_pydra.simulate import HeadSampler, load_label_map, sample_log_bias, simulate_head

CONTRASTS = ("T1w", "T2w", "FLAIR")
# Name -> B-spline spans per axis over the image, and standard deviation of the log field over it.
FIELDS = {"none": (1, 0.0), "weak": (2, 0.05), "smooth": (1, 0.2), "rough": (4, 0.15)}
METHODS = ("n4", "n4+mask", "ubc")
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
MARGIN = 0.005
RIM_MM = 12.0


# --- fields, and what they do


def found_fields(img_data, affine, brain, size, methods) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Each method's log field, with the mask it was given; then absurd fields made from it."""
    for method in methods:
        name, _, masked = method.partition("+")
        mask = brain if masked else None
        corrector = get_corrector(name.partition(":")[0]).from_options(name.partition(":")[2] or None)
        scan = Scan(img_data, np.ones(img_data.shape, bool), mask, size)
        log_bias, _ = estimate(corrector, affine, scan, device="cpu", seed=0)
        yield method, log_bias, mask


def absurd_fields(log_bias, data, region, size, rng) -> Iterator[tuple[str, np.ndarray]]:
    """Wrong fields, made from a right one."""
    shape = data.shape
    yield "doubled", 2 * log_bias
    yield "inverted", -log_bias
    yield "six times", 6 * log_bias
    coarse = rng.normal(size=(14, 14, 14))
    bumps = ndimage.zoom(coarse, [n / 14 for n in shape], order=1)
    yield "rough", log_bias + 0.15 * bumps / bumps.std()
    yield "elsewhere", np.roll(log_bias, [n // 3 for n in shape], (0, 1, 2))
    low = np.percentile(data[region], 2)
    log_image = np.where(region, np.log(np.maximum(data, max(low, 1e-6))), 0)
    width = [20 / mm for mm in size]
    weight = ndimage.gaussian_filter(region.astype(np.float32), width)
    yield "low-pass", ndimage.gaussian_filter(log_image.astype(np.float32), width) / np.maximum(weight, 0.05)


def row(data, log_bias, mask, head, brain, truth, size) -> dict:
    """The gate's numbers of a field, and what it does to the brain."""
    region = head if mask is None else mask
    rim_mm = RIM_MM if mask is None else 0.0
    numbers = field_numbers(data, np.exp(log_bias), region, size, rim_mm=rim_mm)
    before = residual_cov(np.ones_like(truth), np.exp(truth), brain)
    return {"before": before, "after": residual_cov(np.exp(log_bias), np.exp(truth), brain), **(numbers or {})}


def simulated(files: Sequence[Path], seeds: int) -> Iterator[tuple[dict, np.ndarray, np.ndarray, np.ndarray]]:
    """Description, image, true log field and brain of heads of three contrasts, whole and stripped."""
    for file in files:
        labels = load_label_map(file, voxel_size_mm=1.0)
        number = int("".join(filter(str.isdigit, file.name.split(".")[0])) or 0)
        for seed in range(seeds):
            for index, contrast in enumerate(CONTRASTS):
                generator = torch.Generator().manual_seed(100000 * seed + 100 * number + index)
                for kind in ("whole", "stripped"):
                    sampler = HeadSampler(
                        contrasts=(contrast,),
                        stripped=float(kind == "stripped"),
                        noise=(0.01, 0.04),
                        max_elastic=0.02,
                    )
                    parameters = sampler.sample(generator)
                    for name, (spans, sd) in FIELDS.items():
                        log_bias = sample_log_bias((spans,) * 3, sd, generator)
                        head = simulate_head(labels, dataclasses.replace(parameters, log_bias=log_bias))
                        about = {"scan": file.name.split(".")[0], "seed": seed, "contrast": contrast, "kind": kind}
                        yield about | {"field": name}, head.image.numpy(), head.log_bias.numpy(), head.brain.numpy()


def measure(heads, methods: Sequence[str], affine=AFFINE, *, absurd: bool = True) -> Iterator[dict]:
    """A row for each head, method and field."""
    rng = np.random.default_rng(0)
    for about, data, truth, brain in heads:
        size = tuple(float(mm) for mm in np.linalg.norm(affine[:3, :3], axis=0))
        head = image.detect_head(data)
        for method, log_bias, mask in found_fields(data, affine, brain, size, methods):
            how = (data, log_bias, mask, head, brain, truth, size)
            yield about | {"method": method, "estimate": "as found"} | row(*how)
            if absurd and method.startswith("n4"):
                region = head if mask is None else mask
                for kind, wrong in absurd_fields(log_bias, data, region, size, rng):
                    yield about | {"method": method, "estimate": kind} | row(data, wrong, *how[2:])


def label_maps(folder: Path, only: Sequence[str] | None) -> list[Path]:
    files = sorted(folder.glob("*.nii.gz"))
    files = [file for file in files if not only or file.name.removesuffix(".nii.gz") in only]
    if not files:
        raise SystemExit(f"no label maps in {folder}")
    return files


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure")
    one.add_argument("--labels", type=Path, required=True, help="folder of label maps (.nii.gz)")
    one.add_argument("--only", nargs="*", help="names of the label maps to use, without .nii.gz; by default all")
    one.add_argument("--methods", nargs="+", default=METHODS, help="METHOD[:PRESET], with +mask for the brain mask")
    one.add_argument("--seeds", type=int, default=1)
    one.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    if options.command == "measure":
        files = label_maps(options.labels, options.only)
        rows = pd.DataFrame(measure(simulated(files, options.seeds), options.methods))
        rows.to_csv(options.out, sep="\t", index=False, float_format="%.5f")


if __name__ == "__main__":
    main()
