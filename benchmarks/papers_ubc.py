"""Tables 1 to 3 of the UBC paper (Perez-Caballero et al. 2024) on data at hand, from the packaged weights.

    python benchmarks/papers_ubc.py --labels FOLDER --only seg_17 seg_18 --t1w IMAGE ... --t2w IMAGE ... --mritc FOLDER

Each table has CJV, CV(WM), CV(GM), as mean ± standard deviation over the scans, and seconds: uncorrected, UBC, UBC with
TTDA, with TTDA and TTT, and N4, this package's and antspyx's, with the brain mask, and this package's also without one,
as UBC works. One segmentation serves all methods of a scan:

heads simulated from label maps   the true labels (cortex and white matter)
mritc's phantom (BrainWeb's kind) its tissue fractions above 0.9
real images                       Atropos on the *uncorrected* image: it favours no method over another, and all of them
                                  less than the uncorrected image. The paper took vol2Brain's, of which it does not say
                                  from which image
"""

from __future__ import annotations

import argparse
import gzip
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from biascorr_pydra.anatomy.tissue import DSEG_LABELS, segment_tissue
from biascorr_pydra.bench import Case, case_from_image, corrector_of, heads_from_labels
from biascorr_pydra.correction.estimate import estimate
from biascorr_pydra.images import nifti
from biascorr_pydra.methods.ubc.training import UBCTraining
from biascorr_pydra.metrics import cjv, cv, tissue_masks
from biascorr_pydra.training.run import run

# Name in the table -> method (None: none at all), and whether it is given the brain mask.
METHODS = {
    "Original": (None, False),
    "UBC": ("ubc", False),
    "UBC+TTDA": ("ubc:ttda", False),
    "UBC+TTDA+TTT": ("ubc:ttda-ttt", False),
    "N4 (biascorr), no mask": ("n4", False),
    "N4 (biascorr), brain mask": ("n4", True),
    "N4 (antspyx), brain mask": ("ants-n4", True),
}
SCORES = ("CJV", "CV(WM)", "CV(GM)", "Time (s)")
PAPER = {
    "T1w": {
        "Original": ("0.8565 ± 0.2135", "0.1195 ± 0.0229", "0.2020 ± 0.0262", "-"),
        "UBC": ("0.7697 ± 0.0819", "0.0920 ± 0.0205", "0.1789 ± 0.0312", "0.26"),
        "UBC+TTDA": ("0.7686 ± 0.0816", "0.0920 ± 0.0204", "0.1787 ± 0.0311", "0.40"),
        "UBC+TTDA+TTT": ("0.7616 ± 0.0808", "0.0923 ± 0.0221", "0.1790 ± 0.0322", "17.02"),
        "N4 (SimpleITK)": ("0.7646 ± 0.0838", "0.0947 ± 0.0253", "0.1800 ± 0.0345", "89.25"),
    },
    "T2w": {
        "Original": ("1.5308 ± 0.1438", "0.2643 ± 0.0241", "0.3128 ± 0.0335", "-"),
        "UBC+TTDA": ("1.4874 ± 0.1414", "0.2413 ± 0.0294", "0.3082 ± 0.0397", "0.42"),
        "N4 (SimpleITK)": ("1.4917 ± 0.1412", "0.2453 ± 0.0316", "0.3074 ± 0.0403", "20.04"),
    },
}
LATTICES = (3, 5, 7, 9, 11)
MRITC_SHAPE = (91, 109, 91)


def simulated(files: Sequence[Path], contrast: str) -> Iterator[Case]:
    """Whole heads of one contrast with a smooth and a rough field, of each label map; the truth is their dseg."""
    for planned in heads_from_labels(files, contrasts=(contrast,), fields=("smooth", "rough")):
        yield planned.make()


def real(files: Sequence[Path], contrast: str) -> Iterator[Case]:
    """Real images, with Atropos' segmentation of the uncorrected image."""
    for file in files:
        img = nifti.load(file)
        case = case_from_image(img, suffix=contrast)
        yield replace(case, dseg=segment_tissue(img, case.brain, method="atropos", suffix=contrast).dseg)


def mritc(folder: Path) -> Iterator[Case]:
    """The T1w phantom of the R package mritc, 2 mm voxels (raw bytes, first axis fastest)."""

    def read(name: str) -> np.ndarray:
        content = gzip.GzipFile(folder / f"{name}.rawb.gz").read(int(np.prod(MRITC_SHAPE)))
        return np.frombuffer(content, np.uint8).reshape(MRITC_SHAPE, order="F")

    dseg = np.zeros(MRITC_SHAPE, np.int8)
    for tissue in ("GM", "WM", "CSF"):
        fraction = read(tissue.lower()).astype(np.float32)
        dseg[fraction > 0.9 * fraction.max()] = DSEG_LABELS[tissue]
    affine = np.diag([2.0, 2, 2, 1])
    mask = nib.Nifti1Image((read("mask") > 0).astype(np.uint8), affine)
    img = nib.Nifti1Image(read("t1").astype(np.float32), affine)
    yield replace(case_from_image(img, mask_file=mask, suffix="T1w"), dseg=dseg)


def measure(cases: Iterator[Case], methods: Sequence[str] = tuple(METHODS), device: str = "cpu") -> pd.DataFrame:
    """One row for each scan and method."""
    rows, warm = [], set()
    for number, case in enumerate(cases):
        tissues = tissue_masks(case.dseg)
        for name in methods:
            method, masked = METHODS[name]
            corrected, seconds = case.data, None
            if method:
                corrector = corrector_of(method)
                if method not in warm:  # loading weights and compiling are no part of the time
                    estimate(corrector, case.affine, case.scan(masked), device=device, seed=0)
                    warm.add(method)
                began = time.perf_counter()
                log_bias, _ = estimate(corrector, case.affine, case.scan(masked), device=device, seed=0)
                corrected = case.data / np.exp(log_bias)
                seconds = time.perf_counter() - began
            scores = (
                cjv(corrected, tissues["GM"], tissues["WM"]),
                cv(corrected, tissues["WM"]),
                cv(corrected, tissues["GM"]),
                seconds,
            )
            rows.append({"scan": number, "method": name, **dict(zip(SCORES, scores, strict=True))})
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame, contrast: str) -> pd.DataFrame:
    """Mean ± standard deviation over the scans, with the paper's own rows (other data, for orientation) below."""

    def cell(values: pd.Series, score: str) -> str:
        digits = 2 if score == "Time (s)" else 4
        values = values.dropna().astype(float)
        if values.empty:
            return "-"
        spread = "" if len(values) < 2 or score == "Time (s)" else f" ± {values.std():.{digits}f}"
        return f"{values.mean():.{digits}f}{spread}"

    lines = [
        {"Method": name, **{score: cell(group[score], score) for score in SCORES}}
        for name, group in rows.groupby("method", sort=False)
    ]
    lines += [
        {"Method": f"paper: {name}", **dict(zip(SCORES, row, strict=True))} for name, row in PAPER[contrast].items()
    ]
    return pd.DataFrame(lines)


def tables(
    *,
    labels: Sequence[Path] = (),
    t1w: Sequence[Path] = (),
    t2w: Sequence[Path] = (),
    mritc_folder: Path | None = None,
    device: str = "cpu",
) -> dict[str, pd.DataFrame]:
    """Title -> table, for the data that are given.

    Parameters
    ----------
    labels : label maps that no network was trained on
    t1w, t2w : real whole heads
    mritc_folder : folder with t1, mask, csf, gm and wm (.rawb.gz)
    """
    sources = {
        f"Simulated T1w heads of {len(labels)} label maps, true tissues": ("T1w", labels and simulated(labels, "T1w")),
        f"Simulated T2w heads of {len(labels)} label maps, true tissues": ("T2w", labels and simulated(labels, "T2w")),
        "mritc's T1w phantom, true tissues": ("T1w", mritc_folder and mritc(mritc_folder)),
        f"{len(t1w)} real T1w heads, Atropos on the uncorrected image": ("T1w", t1w and real(t1w, "T1w")),
        f"{len(t2w)} real T2w heads, Atropos on the uncorrected image": ("T2w", t2w and real(t2w, "T2w")),
    }
    return {
        title: table(measure(cases, device=device), contrast) for title, (contrast, cases) in sources.items() if cases
    }


def sweep(labels: Path, held_out: str, out: Path, *, steps: int = 150, size: int = 68) -> pd.DataFrame:
    """The paper's sweep of the lattice, with an equally short training of each: a row for each, on held-out heads.

    Parameters
    ----------
    labels : folder of label maps
    held_out : names of those to score on
    out : folder for the trainings
    steps, size : of each training; the paper's had 500 epochs of 914 images of 100 samples per axis
    """
    lines = []
    for lattice in LATTICES:
        config = UBCTraining(
            data=str(labels),
            out=str(out / f"lattice-{lattice}"),
            held_out=held_out,
            lattice=lattice,
            steps=steps,
            size=size,
            learning_rate=2e-3,
            warm_up=steps // 2,
            device="cpu",
        )
        scores = run(config)["scores"]["held_out"]
        by_contrast = pd.DataFrame([scores[contrast] for contrast in ("T1w", "T2w", "FLAIR")]).mean()
        lines.append({"Lattice": lattice, **by_contrast.round(3)})
    return pd.DataFrame(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="folder of label maps (.nii.gz)")
    parser.add_argument("--only", nargs="*", default=[], help="names of the label maps to use; by default all")
    parser.add_argument("--t1w", type=Path, nargs="*", default=[], help="real T1w images")
    parser.add_argument("--t2w", type=Path, nargs="*", default=[], help="real T2w images")
    parser.add_argument("--mritc", type=Path, help="folder of mritc's phantom")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sweep", type=Path, metavar="OUT", help="also train briefly with each lattice, into OUT")
    options = parser.parse_args(argv)
    labels = sorted(options.labels.glob("*.nii.gz")) if options.labels else []
    labels = [file for file in labels if not options.only or file.name.partition(".")[0] in options.only]
    frames = tables(labels=labels, t1w=options.t1w, t2w=options.t2w, mritc_folder=options.mritc, device=options.device)
    if options.sweep:
        held_out = ",".join(options.only) or "2"
        frames["Lattices, each trained briefly"] = sweep(options.labels, held_out, options.sweep)
    for title, frame in frames.items():
        print(f"\n{title}\n\n| " + " | ".join(frame.columns) + " |\n" + "|---" * len(frame.columns) + "|")
        for _, row in frame.iterrows():
            print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
