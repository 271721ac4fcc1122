"""How even white matter is in real scans of one session, whose white matter is known from another contrast.

    python benchmarks/deepem_white_matter.py --lesjak DIR [--out FILE]

DIR holds images named study<N>_<contrast>.nii.gz, a folder per patient (Lesjak et al. 2016). White matter is the
brightest of three classes of the session's T1w as N4 corrects it in the brain, eroded by a voxel: this favours N4,
in the T1w most of all. Given is the robust coefficient of variation (1.4826 MAD / median) of each contrast there: of
the acquired scan, and as corrected by N4 with a brain mask, N4 without, and deepem without.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from biascorr_pydra.bench import Sources
from biascorr_pydra.bench._case import Case
from biascorr_pydra.bench._find import plan_cases
from biascorr_pydra.correctors import get_corrector
from biascorr_pydra.correctors._base import Corrector
from biascorr_pydra.estimation import estimate

FIRST_CLASSES = (0.1, 0.5, 0.85)  # quantiles that k-means begins from
BRIGHTEST = 1.15  # of the class's median: fat and vessels are more


def field(corrector: Corrector, case: Case, masked: bool) -> np.ndarray:
    log_bias, _ = estimate(corrector, case.affine, case.scan(masked), device="cpu", seed=0)
    return np.exp(log_bias)


def white_matter(case: Case, n4: Corrector) -> np.ndarray:
    """The brightest of three classes of a T1w in the brain, eroded: boolean array on its grid."""
    corrected = case.data / field(n4, case, masked=True)
    inside = corrected[case.brain]
    medians = np.quantile(inside, FIRST_CLASSES)
    for _ in range(30):
        nearest = np.abs(inside[:, None] - medians).argmin(1)
        medians = np.array([np.median(inside[nearest == k]) for k in range(3)])
    found = np.zeros(case.brain.shape, bool)
    found[case.brain] = nearest == 2
    return ndimage.binary_erosion(found & (corrected < BRIGHTEST * medians[2]))


def robust_cv(values: np.ndarray) -> float:
    middle = np.median(values)
    return float(1.4826 * np.median(np.abs(values - middle)) / middle)


def rows(cases: dict[str, Case]) -> Iterator[dict]:
    """One row for each contrast of a session."""
    n4, deepem = (get_corrector(name).from_options() for name in ("n4", "deepem"))
    t1w = cases["T1w"]
    white = white_matter(t1w, n4).astype(np.float32)
    for contrast, case in cases.items():
        voxels = np.argwhere(case.brain & (case.data > 0))
        there = nib.affines.apply_affine(np.linalg.inv(t1w.affine) @ case.affine, voxels)
        voxels = voxels[ndimage.map_coordinates(white, there.T, order=1) > 0.95]
        at = tuple(voxels.T)
        row = {"contrast": contrast, "voxels": len(voxels), "acquired": robust_cv(case.data[at])}
        for name, corrector, masked in (("n4, mask", n4, True), ("n4", n4, False), ("deepem", deepem, False)):
            row[name] = robust_cv(case.data[at] / field(corrector, case, masked)[at])
        yield row


def sessions(folder: Path) -> Iterator[tuple[str, dict[str, Case]]]:
    found: dict[str, dict[str, Case]] = {}
    for planned in plan_cases(Sources(data=[folder], select=["study*"])):
        session = planned.facts["scan"].rpartition("_")[0]
        found.setdefault(session, {})[planned.facts["contrast"]] = planned
    for session, plans in found.items():
        if "T1w" in plans:
            yield session, {contrast: planned.make() for contrast, planned in plans.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesjak", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = pd.DataFrame([{"session": name, **row} for name, cases in sessions(options.lesjak) for row in rows(cases)])
    if options.out:
        table.to_csv(options.out, sep="\t", index=False)
    print(table.round(4).to_string(index=False))
    print(table.groupby("contrast").mean(numeric_only=True).round(4).to_string())


if __name__ == "__main__":
    main()
