"""Pictures of scans that the judge orders wrongly: both images, what is left of the field in them, and the tissue.

    python benchmarks/judge_failures.py PAIRS.tsv --labels DIR [--abide SIM] [--images FILE] --set held --out PNG

PAIRS.tsv is benchmarks/judge.py's --out of the same data and set. The worst first: by the ratio of the true numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from judge import METHODS, SETS, SLOW, SPOILED, Known, abide, corrections, heads, labelled
from matplotlib import pyplot as plt

from biascorr_pydra.anatomy.contrast import CONTRAST_ORDER
from biascorr_pydra.correction.divide import divide
from biascorr_pydra.judge.classes import three_tissues
from biascorr_pydra.judge.tissue import Grid, consensus


def worst(pairs: pd.DataFrame, n: int) -> pd.DataFrame:
    """The wrong orders of methods (of none, too) whose true numbers differ most; one for each scan."""
    wrong = pairs[pairs["decided"] & ~pairs["right"] & ~pairs[["first", "second"]].isin(SPOILED).any(axis=1)]
    ratio = (wrong["truth_first"] / wrong["truth_second"]).apply(lambda value: abs(np.log(max(value, 1e-6))))
    return wrong.assign(ratio=ratio).sort_values("ratio", ascending=False).drop_duplicates("scan").head(n)


def draw(axes: np.ndarray, scan: Known, row: pd.Series) -> None:
    """One row of pictures: image, rest of the field, twice; and the tissue that both agree on."""
    fields = corrections(scan, METHODS | SLOW)
    grid = Grid.over(scan.brain, scan.voxel_size_mm)
    images = [divide(scan.data, np.exp(fields[name])) for name in (row["first"], row["second"])]
    coarse = [grid.mean(image) for image in images]
    inside = grid.inside & (coarse[0] > 0) & (coarse[1] > 0)
    order = CONTRAST_ORDER[scan.suffix]
    tissue = consensus([three_tissues(image, inside, order) for image in coarse], order)
    k = int(np.argmax(scan.brain.sum((0, 1))))
    for i, (name, image) in enumerate(zip((row["first"], row["second"]), images, strict=True)):
        top = np.percentile(image[scan.brain], 99)
        axes[2 * i].imshow(image[:, :, k].T, cmap="gray", vmin=0, vmax=top, origin="lower")
        axes[2 * i].set_title(f"{name}{' (judged better)' if row['verdict'] == name else ''}", fontsize=8)
        if scan.log_bias is None:
            continue
        rest = fields[name] - scan.log_bias
        rest = np.where(scan.brain, rest - rest[scan.brain].mean(), np.nan)
        axes[2 * i + 1].imshow(rest[:, :, k].T, cmap="RdBu_r", vmin=-0.2, vmax=0.2, origin="lower")
        left = row["truth_first"] if i == 0 else row["truth_second"]
        axes[2 * i + 1].set_title(f"left of the field, CoV {left:.3f}", fontsize=8)
    plane = min(max((k - grid.box[2].start) // grid.factors[2], 0), tissue.shape[2] - 1)
    axes[4].imshow(tissue[:, :, plane].T, cmap="viridis", vmin=0, vmax=2, origin="lower")
    axes[4].set_title("tissue of both", fontsize=8)
    axes[0].set_ylabel(f"{scan.suffix} {scan.name}", fontsize=7)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--abide", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--set", choices=list(SETS), default="held", dest="which")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=3)
    options = parser.parse_args()
    rows = worst(pd.read_csv(options.pairs, sep="\t"), options.n).set_index(["group", "scan"])
    figure, axes = plt.subplots(len(rows), 5, figsize=(11, 2.4 * len(rows)), squeeze=False, layout="constrained")
    line = 0
    for source, place in ((heads, options.labels), (abide, options.abide), (labelled, options.images)):
        for scan in source(place, options.which) if place else ():
            if (scan.group, scan.name) in rows.index:
                draw(axes[line], scan, rows.loc[(scan.group, scan.name)])
                line += 1
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
