"""Score correctors on simulated heads that no network was trained on, next to N4.

    python benchmarks/validation_heads.py --labels FOLDER [--only seg_17 seg_18] [--methods n4 ubc] [--seeds 1]

From each label map, heads of three contrasts (T1w, T2w, FLAIR) are made with no field, a smooth and a rough one. Each
method estimates the field of each head, once without a mask and once with the true brain mask.

residual_cov   std/mean over the brain of estimated / true field: 0 is best; "before" is without any correction
log_rmse       root mean square error of the log field over the brain, its mean apart: 0 is best
slope          how much of a further known field k the method sees: regression of log estimate(v k) - log estimate(v) on
               log k over the brain; 1 is right, 0 means that the method does not respond to the image

Results are printed as Markdown; --out FOLDER also keeps them, with every single head as TSV.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from biascorr_pydra.correctors import get_corrector
from biascorr_pydra.correctors._base import Scan
from biascorr_pydra.field import LogBiasSpline
from biascorr_pydra.metrics import log_field_rmse, residual_cov, response_slope
from biascorr_pydra.simulate import (
    HeadSampler,
    SimulatedHead,
    inject_bias,
    load_label_map,
    sample_log_bias,
    simulate_head,
)

CONTRASTS = ("T1w", "T2w", "FLAIR")
# Name -> B-spline spans per axis over the image, and standard deviation of the log field over it.
FIELDS = {"none": (1, 0.0), "smooth": (1, 0.2), "rough": (4, 0.15)}
EXTRA = (2, 0.15)
VOXEL_MM = (2.0, 2.0, 2.0)


def make_heads(files: Sequence[Path], seeds: int, stripped: bool) -> Iterator[tuple[dict, SimulatedHead, np.ndarray]]:
    """What each head is, the head, and a further log field (numpy) to be injected."""
    for file in files:
        labels = load_label_map(file, voxel_size_mm=1.0)
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(seed)
            for contrast in CONTRASTS:
                sampler = HeadSampler(
                    contrasts=(contrast,), stripped=float(stripped), noise=(0.01, 0.03), max_elastic=0.02
                )
                parameters = sampler.sample(generator)
                extra = sample_log_bias((EXTRA[0],) * 3, EXTRA[1], generator).numpy()
                for field, (spans, sd) in FIELDS.items():
                    log_bias = sample_log_bias((spans,) * 3, sd, generator)
                    head = simulate_head(labels, dataclasses.replace(parameters, log_bias=log_bias))
                    log_k = LogBiasSpline.spanning(extra, head.image.shape).on_grid(head.image.shape)
                    name = {"labels": file.name.split(".")[0], "seed": seed, "contrast": contrast, "field": field}
                    yield name, head, log_k


def estimate(corrector, data: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Log bias on the grid, and seconds."""
    began = time.perf_counter()
    scan = Scan(data, np.ones(data.shape, bool), mask, VOXEL_MM)
    log_bias = corrector.estimate(scan).log_bias
    if isinstance(log_bias, LogBiasSpline):
        log_bias = log_bias.on_grid(data.shape)
    return log_bias, time.perf_counter() - began


def score(corrector, head: SimulatedHead, log_k: np.ndarray, masked: bool) -> dict[str, float]:
    """The scores of one corrector on one head."""
    image, truth, brain = head.image.numpy(), head.log_bias.numpy(), head.brain.numpy()
    mask = brain if masked else None
    found, seconds = estimate(corrector, image, mask)
    with_k, _ = estimate(corrector, inject_bias(image, log_k), mask)
    return {
        "before": residual_cov(np.ones_like(truth), np.exp(truth), brain),
        "residual_cov": residual_cov(np.exp(found), np.exp(truth), brain),
        "log_rmse": log_field_rmse(found, truth, brain),
        "slope": response_slope(with_k - found, log_k, brain),
        "seconds": seconds,
    }


def run(files: Sequence[Path], methods: Sequence[str], seeds: int, stripped: bool = False) -> pd.DataFrame:
    """One row for each method, mask and head."""
    correctors = {method: get_corrector(method.partition(":")[0]).from_options(*_options(method)) for method in methods}
    rows = []
    for name, head, log_k in make_heads(files, seeds, stripped):
        for method, corrector in correctors.items():
            for masked in (False, True):
                scores = score(corrector, head, log_k, masked)
                rows.append({"method": method, "mask": "brain" if masked else "none", **name, **scores})
    return pd.DataFrame(rows)


def _options(method: str) -> list[str]:
    preset = method.partition(":")[2]
    return [preset] if preset else []


def summarize(rows: pd.DataFrame) -> str:
    """Means over the heads, as Markdown."""
    scores = ["before", "residual_cov", "log_rmse", "slope", "seconds"]
    lines = ["| method | mask | contrast | field | " + " | ".join(scores) + " |", "|---" * (4 + len(scores)) + "|"]
    for by in (["method", "mask", "field"], ["method", "mask", "contrast", "field"]):
        means = rows.groupby(by, sort=False)[scores].mean().reset_index()
        means = means.sort_values(["method", "mask"], kind="stable")
        for _, row in means.iterrows():
            cells = [row["method"], row["mask"], row.get("contrast", "all"), row["field"]]
            lines.append("| " + " | ".join([*cells, *[f"{row[score]:.3f}" for score in scores]]) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder of label maps (.nii.gz)")
    parser.add_argument("--only", nargs="*", help="names of the label maps to use, without .nii.gz; by default all")
    parser.add_argument("--methods", nargs="+", default=["n4", "ubc"], help="method, or method:preset")
    parser.add_argument("--seeds", type=int, default=1, help="heads of each contrast and field from each label map")
    parser.add_argument("--stripped", action="store_true", help="heads without anything outside the brain")
    parser.add_argument("--out", type=Path, help="folder for validation_heads.tsv and .md")
    options = parser.parse_args(argv)
    files = sorted(options.labels.glob("*.nii.gz"))
    if options.only:
        files = [file for file in files if file.name.removesuffix(".nii.gz") in options.only]
    if not files:
        parser.error(f"no label maps in {options.labels}")
    rows = run(files, options.methods, options.seeds, options.stripped)
    text = summarize(rows)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        rows.to_csv(options.out / "validation_heads.tsv", sep="\t", index=False, float_format="%.5f")
        (options.out / "validation_heads.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
