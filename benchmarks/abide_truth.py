"""What an evaluated simulated ABIDE has left of its fields: residual CoV before and after, by method.

    python benchmarks/abide_truth.py SIM OUT

SIM was made by bids_examples/make_abide.py in layout indi, OUT by workflows/evaluate_abide.py from SIM/RawDataBIDS.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.metrics import residual_cov


def scores(row: dict, sim: Path, out: Path) -> tuple[float, float]:
    """Residual CoV in the true brain, of no correction and of the method's field."""
    person, place = row["participant_id"], Path(row["folder"])
    true = sim / "truth" / place / person / "anat"
    about = json.loads((true / f"{person}_desc-T1w_biasfield.json").read_text())
    mask = np.asarray(nifti.load(true / f"{person}_desc-brain_mask.nii.gz").dataobj) > 0
    spline = LogBiasSpline(np.array(about["LogBiasControlPoints"]), about["MeshFirst"], about["MeshLast"])
    field = np.exp(spline.on_grid(mask.shape, np.float64))
    bias = nifti.load(out / place / row["method"] / person / "anat" / f"{person}_desc-T1w_biasfield.nii.gz").get_fdata()
    return residual_cov(np.ones_like(field), field, mask), residual_cov(bias, field, mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sim", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    scans = pd.read_csv(options.out / "evaluation" / "scans.tsv", sep="\t", na_values="n/a")
    scans = scans[scans["state"].isin(["done", "cached"])]
    pairs = [scores(row, options.sim, options.out) for row in scans.to_dict("records")]
    before, after = np.array(pairs).T
    for method in scans["method"].unique():
        mine = (scans["method"] == method).to_numpy()
        medians = f"median {np.median(before[mine]):.4f} before, {np.median(after[mine]):.4f} after"
        print(f"{method}: {medians}; lower in {int((after < before)[mine].sum())} of {mine.sum()} scans")


if __name__ == "__main__":
    main()
