"""How even white and gray matter are in real scans, where the tissue is known without looking at intensities.

    python benchmarks/real_tissue.py [--lesjak DIR] [--heads DIR] [--stripped DIR] --work DIR [--out FILE]

DIR are folders as benchmarks/deepem.py takes them; of those in --lesjak, the other contrasts of a session take their
tissue from its T1w. Tissue is carried from the MNI152 template that nilearn has, by ANTs' SyN with local correlation,
which a bias field hardly moves, between the acquired T1w and the template; far from the rim of the tissue. It is kept
in --work. (Classes by the intensities of a corrected image favour whatever corrected it.)

Given are, for each tissue, the robust coefficient of variation (1.4826 MAD / median), and the standard deviation over
the brain of a robust quadratic trend of log intensity; and that of what both trends have in common: a bias field
changes both tissues alike, anatomy need not.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from scipy import ndimage

from biascorr_pydra.bench import Sources
from biascorr_pydra.bench.case import Case
from biascorr_pydra.bench.find import plan_cases
from biascorr_pydra.correction.estimate import estimate
from biascorr_pydra.methods import get_corrector

#: Method -> whether it is given the brain mask, by column.
METHODS = {"n4, mask": ("n4", True), "n4": ("n4", False), "deepem": ("deepem", False)}
#: Tissue -> smoothing of its probability in mm, and the least of what comes out.
CORE = {"WM": (1.5, 0.9), "GM": (1.0, 0.7)}
REGISTERED_MM, ITERATIONS = 2.0, (40, 20, 0)
FAR = 0.5  # log intensity from the median, beyond which a voxel counts as if it were there
ROBUST, ROUNDS, LEAST = 2.0, 15, 1e-3


# --- tissue


def tissue_of(case: Case, work: Path) -> dict[str, np.ndarray]:
    """Probabilities of the tissues on a T1w's grid, from ``work`` if they are there."""
    scan = f"{case.facts['dataset']}_{case.facts['scan']}".replace("/", "_")
    files = {name: work / f"{scan}_{name}.nii.gz" for name in CORE}
    if not all(file.is_file() for file in files.values()):
        for name, values in _registered(case, work).items():
            nib.save(nib.Nifti1Image(values.astype(np.float32), case.affine), files[name])
    return {name: np.asarray(nib.load(file).dataobj) for name, file in files.items()}


def _registered(case: Case, work: Path) -> dict[str, np.ndarray]:
    import ants
    from nilearn import datasets

    def as_ants(img):
        nib.save(img, work / "registering.nii.gz")
        return ants.image_read(str(work / "registering.nii.gz"))

    load = {
        "GM": datasets.load_mni152_gm_template,
        "WM": datasets.load_mni152_wm_template,
        "all": datasets.load_mni152_template,
    }
    template = {name: as_ants(loader(resolution=1)) for name, loader in load.items()}
    brain = nib.Nifti1Image((case.data * case.brain).astype(np.float32), case.affine)
    scan = as_ants(nib.as_closest_canonical(brain))
    registration = ants.registration(
        ants.resample_image(scan, (REGISTERED_MM,) * 3, False, 0),
        template["all"],
        type_of_transform="SyNRA",
        syn_metric="CC",
        syn_sampling=2,
        reg_iterations=ITERATIONS,
    )
    back = ornt_transform(io_orientation(np.eye(4)), io_orientation(case.affine))
    carried = {
        name: ants.apply_transforms(scan, template[name], registration["fwdtransforms"]).numpy() for name in CORE
    }
    return {name: apply_orientation(values, back) for name, values in carried.items()}


def cores(probability: dict[str, np.ndarray], t1w: Case, case: Case) -> dict[str, np.ndarray]:
    """Where a scan of the T1w's session surely has each tissue: boolean arrays on the scan's grid."""
    pull = np.linalg.inv(t1w.affine) @ case.affine
    masks = {}
    for name, (width_mm, least) in CORE.items():
        smooth = ndimage.gaussian_filter(probability[name], [width_mm / mm for mm in t1w.voxel_size_mm])
        share = ndimage.affine_transform(smooth, pull, output_shape=case.data.shape, order=1)
        masks[name] = (share > least) & case.brain & (case.data > 0)
    return masks


# --- how even it is


def robust_cv(values: np.ndarray) -> float:
    middle = np.median(values)
    return float(1.4826 * np.median(np.abs(values - middle)) / middle)


def _quadratic(places: np.ndarray) -> np.ndarray:
    x, y, z = places.T
    return np.column_stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z])


def trend(places: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """A robust quadratic through values at some places (n, 3), at the wanted places."""
    design, weight = _quadratic(places), np.ones(len(values))
    values = np.clip(values - np.median(values), -FAR, FAR)
    for _ in range(ROUNDS):
        coefficients = np.linalg.lstsq(design * weight[:, None], values * weight, rcond=None)[0]
        residual = values - design @ coefficients
        spread = 1.4826 * max(np.median(np.abs(residual)), LEAST)
        weight = 1 / (1 + (residual / (ROBUST * spread)) ** 2)
    return _quadratic(wanted) @ coefficients


def evenness(case: Case, log_bias: np.ndarray, where: dict[str, np.ndarray]) -> dict[str, float]:
    """The numbers of one corrected scan."""
    places = np.argwhere(case.brain)
    middle, width = places.mean(0), places.std(0)
    wanted = (places[::20] - middle) / width
    row, trends = {}, []
    for name, core in where.items():
        values = np.log(case.data[core]) - log_bias[core]
        row[f"{name} CV"] = robust_cv(np.exp(values))
        trends.append(trend((np.argwhere(core) - middle) / width, values, wanted))
        row[f"{name} trend"] = float(trends[-1].std())
    return row | {"common trend": float(np.mean(trends, 0).std())}


def rows(cases: dict[str, Case], work: Path) -> Iterator[dict]:
    """Of each contrast of a session, as acquired and as each method corrects it."""
    t1w = cases["T1w"]
    probability = tissue_of(t1w, work)
    for contrast, case in cases.items():
        where = cores(probability, t1w, case)
        about = {"dataset": case.facts["dataset"], "scan": case.facts["scan"], "contrast": contrast}
        yield about | {"method": "acquired"} | evenness(case, np.zeros_like(case.data), where)
        for name, (method, masked) in METHODS.items():
            scan = case.scan(masked)
            log_bias, _ = estimate(get_corrector(method).from_options(), case.affine, scan, device="cpu", seed=0)
            yield about | {"method": name} | evenness(case, log_bias, where)


def sessions(options: argparse.Namespace) -> Iterator[dict[str, Case]]:
    """The scans of each session that has a T1w, by contrast."""
    select = {
        "heads": {"select": ["*_T1w.nii.gz", "*_T1fs_*", "ch2.nii.gz"], "contrast": "T1w"},
        "lesjak": {"select": ["study*"]},
        "stripped": {"contrast": "T1w"},
    }
    for name, more in select.items():
        by_session: dict[str, dict[str, Case]] = {}
        for planned in plan_cases(Sources(data=[getattr(options, name)], **more)) if getattr(options, name) else ():
            scan = planned.facts["scan"]
            session = scan.rpartition("_")[0] if name == "lesjak" else scan
            by_session.setdefault(session, {})[planned.facts["contrast"]] = planned
        for plans in by_session.values():
            if "T1w" in plans:
                yield {contrast: planned.make() for contrast, planned in plans.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("lesjak", "heads", "stripped"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    options.work.mkdir(parents=True, exist_ok=True)
    lines = []
    for cases in sessions(options):
        lines += rows(cases, options.work)
        print(pd.DataFrame(lines[-4:]).round(3).to_string(index=False), flush=True)
    table = pd.DataFrame(lines)
    if options.out:
        table.to_csv(options.out, sep="\t", index=False)
    print(table.groupby(["dataset", "contrast", "method"], sort=False).mean(numeric_only=True).round(3).to_string())


if __name__ == "__main__":
    main()
