"""Residual error of every method on the example phantom, whose true fields are known.

    python benchmarks/phantom.py [--method n4 --method ants-n4:antspy ...]

Residual CoV: standard deviation over mean, in the brain, of estimated / true field; 0 is best. Each method runs without
a mask and with the true brain mask. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from biascorr_pydra import image
from biascorr_pydra.correct import correct_image
from biascorr_pydra.correctors import method_names
from biascorr_pydra.field import LogBiasSpline
from biascorr_pydra.metrics import residual_cov

EXAMPLES = Path(__file__).parents[1] / "bids_examples"


def truth_of(scan: Path) -> tuple[np.ndarray, np.ndarray]:
    """True bias field and brain mask of a phantom scan, on its grid."""
    stem, suffix = scan.name.removesuffix(".nii.gz").rsplit("_", 1)
    folder = EXAMPLES / "phantom_truth" / scan.parent.relative_to(EXAMPLES / "phantom")
    space = "" if suffix == "T1w" else f"space-{suffix}_"
    mask = np.asarray(image.load(folder / f"{stem}_{space}desc-brain_mask.nii.gz").dataobj) > 0
    record = json.loads((folder / f"{stem}_desc-{suffix}_biasfield.json").read_text())
    spline = LogBiasSpline(
        np.array(record["LogBiasControlPoints"]), tuple(record["MeshFirst"]), tuple(record["MeshLast"])
    )
    return np.exp(spline.on_grid(mask.shape, float)), mask


def score(scan: Path, spec: str, masked: bool) -> tuple[float, float]:
    """Residual CoV and seconds of one method on one scan."""
    method, _, preset = spec.partition(":")
    bias, brain = truth_of(scan)
    img = image.load(scan)
    mask = image.save_like(brain, img, dtype=np.uint8) if masked else None
    started = time.perf_counter()
    found = correct_image(img, method=method, preset=preset or None, mask=mask)
    return residual_cov(found.bias.get_fdata(), bias, brain), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", action="append", help="name or name:preset, repeatable; every method by default")
    specs = parser.parse_args().method or method_names()
    scans = sorted((EXAMPLES / "phantom").glob("sub-*/ses-*/anat/*.nii.gz"))
    print("| scan | before |" + "".join(f" {spec}, no mask | {spec}, brain mask |" for spec in specs))
    print("|---|---|" + "---|---|" * len(specs))
    columns = []
    for scan in scans:
        bias, brain = truth_of(scan)
        row = [residual_cov(np.ones_like(bias), bias, brain)]
        row += [score(scan, spec, masked)[0] for spec in specs for masked in (False, True)]
        columns.append(row)
        print(
            f"| {scan.name.removesuffix('.nii.gz')} | " + " | ".join(f"{value:.4f}" for value in row) + " |", flush=True
        )
    print("| mean | " + " | ".join(f"{value:.4f}" for value in np.mean(columns, axis=0)) + " |")


if __name__ == "__main__":
    main()
