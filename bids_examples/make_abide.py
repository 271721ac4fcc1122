"""Make a simulated ABIDE: 17 sites with grids, contrasts, fields and noise of their own, and the truth kept aside.

    python bids_examples/make_abide.py --out DIR [--scans 1112] [--voxel-size-mm 1] [--layout indi|bids] [--flaws]

writes, under DIR,

    RawDataBIDS/<folder>/sub-*/anat/   layout indi: one BIDS data set a folder, named as in INDI's release
    BIDS/sub-*/anat/                   layout bids: one data set, the site in participants.tsv
    truth[/<folder>]/sub-*/anat/       brain mask, segmentation, tissue fractions and the field that was applied
    Phenotypic_simulated.csv           SITE_ID, SUB_ID and FILE_ID, with -9999 where a value is missing

No person was scanned. The anatomy is that of make_examples.py: the MNI152 template that nilearn carries, bent anew for
each participant. Seeded: the same options give the same voxels, with any number of processes.

What is published about ABIDE I and what is invented here:

- Published: the 17 names of the sites, and INDI's 24 folders (CMU_a, CMU_b, MaxMun_a ... MaxMun_d, UCLA_1 ...) with one
  BIDS data set each, a T1w.json a site, seven-digit labels (sub-0050002) for the phenotypic file's SUB_ID 50002, -9999
  for missing values, 1,112 participants in all (Di Martino et al. 2014, doi:10.1038/mp.2013.78), of whom 1,102 have a
  T1w. That an image was an empty file (Pitt, sub-0050049), and that participants of UCLA have no T1w, is known from
  people who used the release; --flaws imitates these.
- From memory, and only their sum checked against the published 1,112: the number of participants a site.
- Invented: everything else, that is voxel sizes, orientations, contrasts, noise, fields, ages, diagnoses, and ids
  (from 0090001 on, a range that ABIDE does not use).
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import make_examples as examples
import numpy as np
import phantom_head
import torch
from scipy import ndimage

from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.simulation.heads import inject_bias, sample_log_bias

FIRST_ID = 90001
# A field range drawn per scan lies within these factors of its site's.
FIELD_FACTORS = (0.75, 1.25)
WM_INTENSITY = 83.0
SMOOTHING = 0.35  # of the voxel size, before the template is sampled on a coarser grid


@dataclass(frozen=True)
class Site:
    """One site. Contrast and noise are relative to white matter; the field range is P95 - P5 of its logarithm."""

    name: str
    folders: tuple[str, ...]
    n_scans: int
    voxel: tuple[float, float, float]  # relative to --voxel-size-mm, in the order of the voxel axes
    axcodes: str
    gm: float
    csf: float
    noise: float
    field_range: float
    field_spans: int  # B-spline spans per axis: more are rougher
    scale: float = 1.0  # of the stored intensities


# fmt: off
SITES = (
    Site("CALTECH", ("Caltech",), 38, (1.0, 1.0, 1.0), "RAS", 0.69, 0.26, 0.020, 0.35, 2, 4.0),
    Site("CMU", ("CMU_a", "CMU_b"), 27, (1.0, 1.0, 1.0), "LAS", 0.71, 0.28, 0.025, 0.45, 2, 2.5),
    Site("KKI", ("KKI",), 55, (1.0, 1.0, 1.0), "RAS", 0.66, 0.22, 0.030, 0.25, 1, 90.0),
    Site("LEUVEN", ("Leuven_1", "Leuven_2"), 64, (0.98, 0.98, 1.2), "LPS", 0.65, 0.20, 0.025, 0.30, 1, 60.0),
    Site("MAX_MUN", ("MaxMun_a", "MaxMun_b", "MaxMun_c", "MaxMun_d"), 57, (1.0, 1.0, 1.1), "RAS",
         0.72, 0.30, 0.030, 0.40, 2),
    Site("NYU", ("NYU",), 184, (1.3, 1.0, 1.3), "RPI", 0.70, 0.27, 0.020, 0.50, 2, 3.0),
    Site("OHSU", ("OHSU",), 28, (1.0, 1.0, 1.1), "RAS", 0.71, 0.29, 0.022, 0.60, 2, 5.0),
    Site("OLIN", ("Olin",), 36, (1.0, 1.0, 1.0), "LAS", 0.73, 0.33, 0.035, 0.30, 2, 2.0),
    Site("PITT", ("Pitt",), 57, (1.1, 1.1, 1.1), "RAS", 0.70, 0.28, 0.030, 0.35, 2, 1.5),
    Site("SBL", ("SBL",), 30, (1.0, 1.0, 1.0), "LPS", 0.67, 0.24, 0.028, 0.20, 1, 40.0),
    Site("SDSU", ("SDSU",), 36, (1.0, 1.0, 1.0), "RAS", 0.74, 0.30, 0.030, 0.55, 3, 20.0),
    Site("STANFORD", ("Stanford",), 40, (0.86, 0.86, 1.5), "LPS", 0.75, 0.35, 0.040, 0.70, 3, 15.0),
    Site("TRINITY", ("Trinity",), 49, (0.9, 0.9, 0.9), "RAS", 0.66, 0.22, 0.030, 0.30, 1, 70.0),
    Site("UCLA", ("UCLA_1", "UCLA_2"), 109, (1.0, 1.0, 1.2), "RAS", 0.70, 0.27, 0.025, 0.40, 2, 3.0),
    Site("UM", ("UM_1", "UM_2"), 145, (1.02, 1.02, 1.2), "RPI", 0.76, 0.36, 0.040, 0.65, 3, 12.0),
    Site("USM", ("USM",), 101, (1.0, 1.0, 1.2), "RAS", 0.71, 0.28, 0.022, 0.40, 2, 2.0),
    Site("YALE", ("Yale",), 56, (1.0, 1.0, 1.0), "LAS", 0.70, 0.26, 0.025, 0.45, 2, 4.0),
)
# fmt: on


@dataclass(frozen=True)
class Scan:
    """One scan to make."""

    number: int
    site: Site
    folder: str  # of INDI's layout

    @property
    def sub_id(self) -> int:
        return FIRST_ID + self.number

    @property
    def label(self) -> str:
        return f"sub-{self.sub_id:07d}"

    def anat(self, root: Path, layout: str) -> Path:
        return (root / self.folder if layout == "indi" else root) / self.label / "anat"


def plan_scans(n_scans: int | None, per_site: int | None) -> list[Scan]:
    """The scans, site by site: ``per_site`` of each, or ``n_scans`` shared out as ABIDE's are, at least one a site."""
    if per_site is not None:
        counts = [per_site] * len(SITES)
    else:
        if n_scans < len(SITES):
            raise SystemExit(f"--scans {n_scans}: at least one a site, {len(SITES)}")
        shares = np.array([site.n_scans for site in SITES]) / sum(site.n_scans for site in SITES) * n_scans
        counts = np.maximum(1, np.floor(shares)).astype(int)
        while counts.sum() != n_scans:
            step = int(np.sign(n_scans - counts.sum()))
            off = np.where((counts > 1) | (step > 0), step * (shares - counts), -np.inf)
            counts[int(np.argmax(off))] += step
    folders = [
        (site, site.folders[i % len(site.folders)]) for site, n in zip(SITES, counts, strict=True) for i in range(n)
    ]
    return [Scan(number, site, folder) for number, (site, folder) in enumerate(folders)]


# --- one scan


_anatomy: dict[float, phantom_head.Anatomy] = {}


def anatomy_for(voxel_size_mm: float) -> phantom_head.Anatomy:
    """The template, smoothed for the voxel size; loaded once a process."""
    if voxel_size_mm not in _anatomy:
        loaded = phantom_head.load_anatomy()
        sigma = SMOOTHING * voxel_size_mm if voxel_size_mm > 1 else 0
        maps = {name: ndimage.gaussian_filter(m, sigma) if sigma else m for name, m in loaded.maps.items()}
        _anatomy[voxel_size_mm] = replace(loaded, maps=maps)
    return _anatomy[voxel_size_mm]


def grid(site: Site, voxel_size_mm: float) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine: the field of view of the example phantom, in the site's voxels and orientation."""
    import nibabel as nib

    sizes = voxel_size_mm * np.array(site.voxel)
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(site.axcodes), (1, 1, 1))[:3, :3]
    low, high = np.array(phantom_head.FIELD_OF_VIEW_MM).T
    extent = np.abs(turn.T @ (high - low))
    shape = np.floor(extent / sizes).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(sizes)
    affine[:3, 3] = (low + high) / 2 - affine[:3, :3] @ ((shape - 1) / 2)
    return tuple(int(n) for n in shape), np.round(affine, 6)


def field(site: Site, key: phantom_head.Session, shape, brain: np.ndarray) -> LogBiasSpline:
    """A smooth log field of the site's roughness, its range in the brain drawn around the site's."""
    rng = phantom_head.rng_for(key.subject, "field")
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    points = sample_log_bias([site.field_spans] * 3, 1.0, generator).numpy().astype(np.float64)
    low, high = np.percentile(LogBiasSpline.spanning(points, shape).on_grid(shape, np.float64)[brain], (5, 95))
    points *= site.field_range * rng.uniform(*FIELD_FACTORS) / (high - low)
    return LogBiasSpline.spanning(np.round(points, 6), shape)  # six decimals: the file gives exactly what was applied


def acquire(parts: dict[str, np.ndarray], site: Site, key: phantom_head.Session, log_bias: np.ndarray) -> np.ndarray:
    """Tissue means with a fine texture, times the field, with Rician noise, in the site's units."""
    rng = phantom_head.rng_for(key.subject, "noise")
    means = {
        **phantom_head.CONTRAST["T1w"],
        "WM": WM_INTENSITY,
        "GM": site.gm * WM_INTENSITY,
        "CSF": site.csf * WM_INTENSITY,
    }
    means["CSF outside"] = means["CSF"]
    clean = sum(means[name] * part for name, part in parts.items())
    texture = ndimage.gaussian_filter(rng.normal(0, 1, clean.shape), 1.0)
    clean = clean * (1 + 0.02 * texture / texture.std())
    real, imaginary = rng.normal(0, site.noise * WM_INTENSITY, (2, *clean.shape))
    return site.scale * np.hypot(inject_bias(clean, log_bias) + real, imaginary)


def write_scan(scan: Scan, out: Path, layout: str, voxel_size_mm: float, seed: int) -> None:
    """One image and its truth."""
    torch.set_num_threads(1)
    key = phantom_head.Session(f"abide {seed} {scan.sub_id}", "1", 0)
    shape, affine = grid(scan.site, voxel_size_mm)
    parts = phantom_head.fractions(anatomy_for(voxel_size_mm), key, shape, affine)
    tissues = np.stack([parts[tissue] for tissue in phantom_head.TISSUES])
    brain = tissues.sum(0) > 0.5
    spline = field(scan.site, key, shape, brain)
    data = acquire(parts, scan.site, key, spline.on_grid(shape, np.float64))
    raw, true = scan.anat(out / raw_name(layout), layout), scan.anat(out / "truth", layout)
    for folder in (raw, true):
        folder.mkdir(parents=True, exist_ok=True)
    nifti.save(examples.stored(data, affine, np.int16), raw / f"{scan.label}_T1w.nii.gz")
    source = f"bids:raw:{scan.label}/anat/{scan.label}_T1w.nii.gz"
    examples.write_truth(true, scan.label, affine, brain, tissues, source)
    applied = {
        "Description": "Natural logarithm of the bias field: control points of a uniform cubic B-spline",
        "Sources": [source],
        "LogBiasControlPoints": spline.control_points.tolist(),
        "MeshFirst": list(spline.first),
        "MeshLast": list(spline.last),
    }
    examples.write_json(true / f"{scan.label}_desc-T1w_biasfield.json", applied)


# --- data sets


def raw_name(layout: str) -> str:
    return "RawDataBIDS" if layout == "indi" else "BIDS"


def describe(out: Path, layout: str, scans: list[Scan]) -> None:
    """What stands at the roots of the data sets, and the phenotypic table."""
    roots: dict[str, list[Scan]] = {}
    for scan in scans:
        roots.setdefault(scan.folder if layout == "indi" else "", []).append(scan)
    generated = [{"Name": "make_abide.py", "Description": "bids_examples/make_abide.py of biascorr_pydra"}]
    for folder, mine in roots.items():
        raw, truth = out / raw_name(layout) / folder, out / "truth" / folder
        name = f"Simulated ABIDE{folder and ', ' + folder}"
        examples.describe(raw, name, examples.MNI_LICENCE, README, GeneratedBy=generated)
        link = f"{'../' * (2 if folder else 1)}{raw_name(layout)}/{folder}".rstrip("/")
        more = {"DatasetType": "derivative", "SourceDatasets": [{"URL": link}], "DatasetLinks": {"raw": link}}
        examples.describe(truth, f"{name}: truth", examples.MNI_LICENCE, README, GeneratedBy=generated, **more)
        examples.write_text(truth / ".bidsignore", "*_biasfield.*\n")
        labels = "".join(f"{label}\t{tissue}\n" for label, tissue in enumerate(phantom_head.TISSUES, 1))
        examples.write_text(truth / "dseg.tsv", f"index\tname\n{labels}")
        column = ("\tsite", "\t{}") if layout == "bids" else ("", "")
        rows = "".join(f"{scan.label}{column[1].format(scan.site.name)}\n" for scan in mine)
        examples.write_text(raw / "participants.tsv", f"participant_id{column[0]}\n{rows}")
        if layout == "bids":
            examples.write_json(raw / "participants.json", {"site": {"Description": "Simulated site"}})
        about = {"Manufacturer": "simulated", "MagneticFieldStrength": 3.0, "MRAcquisitionType": "3D"}
        examples.write_json(raw / "T1w.json", {**about, "ImageType": ["DERIVED", "PRIMARY", "SIMULATED"]})
    write_phenotypic(out, [phenotype(scan) for scan in scans])


def phenotype(scan: Scan) -> dict:
    """A row of the phenotypic table; all but the ids and the site is invented or missing."""
    rng = phantom_head.rng_for(str(scan.sub_id), "phenotype")
    return {
        "SITE_ID": scan.site.name,
        "SUB_ID": scan.sub_id,
        "FILE_ID": f"{scan.folder}_{scan.sub_id:07d}",
        "DX_GROUP": int(rng.integers(1, 3)),
        "AGE_AT_SCAN": round(float(rng.uniform(7, 40)), 1),
        "SEX": 1 + int(rng.uniform() < 0.15),
        "FIQ": -9999,
    }


def write_phenotypic(out: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    examples.write_text(out / "Phenotypic_simulated.csv", text.getvalue())


def add_flaws(out: Path, layout: str, scans: list[Scan]) -> list[str]:
    """Spoil a few things as a real release has them spoiled; what was done, in words."""
    by_site = {site.name: [scan for scan in scans if scan.site is site] for site in SITES}
    raw = out / raw_name(layout)
    empty, absent = by_site["PITT"][0], by_site["UCLA"][-1]
    (empty.anat(raw, layout) / f"{empty.label}_T1w.nii.gz").write_bytes(b"")
    shutil.rmtree(absent.anat(raw, layout))
    done = [f"{empty.label}: an empty file", f"{absent.label}: no T1w"]
    if layout == "indi":
        (raw / "Olin" / "dataset_description.json").unlink()
        examples.write_json(raw / "sidecards" / "sub-0090001" / "ses-Caltech" / "anat" / "sub-0090001_T1w.json", {})
        done += ["Olin: no dataset_description.json", "sidecards: a folder of JSON files only"]
    rows = {scan.sub_id: phenotype(scan) for scan in scans}
    unmatched, moved, twice = by_site["YALE"][0], by_site["USM"][0], by_site["NYU"][0]
    del rows[unmatched.sub_id]
    rows[moved.sub_id]["SITE_ID"] = "NYU"
    write_phenotypic(
        out, [*rows.values(), rows[twice.sub_id], phenotype(twice) | {"SUB_ID": 99999, "FILE_ID": "no_filename"}]
    )
    return [
        *done,
        f"{unmatched.label}: not in the phenotypic table",
        f"{moved.label}: another site (NYU) in the phenotypic table",
        f"{twice.label}: twice in the phenotypic table",
        "99999: in the phenotypic table only",
    ]


README = f"""# A simulated ABIDE

Made by `make_abide.py` of biascorr_pydra. No person was scanned: sites have the names of ABIDE's, and grids, contrasts,
fields and noise that were invented for them.
{examples.MNI_NOTICE}"""


def make_abide(
    out: Path, scans: list[Scan], *, layout: str, voxel_size_mm: float, seed: int, n_procs: int = 1, flaws: bool = False
) -> list[str]:
    """Write everything; returns the flaws added, in words."""
    describe(out, layout, scans)
    write = partial(write_scan, out=out, layout=layout, voxel_size_mm=voxel_size_mm, seed=seed)
    if n_procs == 1:
        list(map(write, scans))
    else:
        with ProcessPoolExecutor(n_procs) as pool:
            list(pool.map(write, scans, chunksize=4))
    return add_flaws(out, layout, scans) if flaws else []


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the data sets")
    number = parser.add_mutually_exclusive_group()
    number.add_argument("--scans", type=int, default=34, help="scans in all, shared out as ABIDE's 1112 are [34]")
    number.add_argument("--scans-per-site", type=int, help="as many of each site instead")
    parser.add_argument("--voxel-size-mm", type=float, default=4.0, help="about; each site has its own [4]")
    parser.add_argument("--layout", choices=("indi", "bids"), default="indi")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--n-procs", type=int, default=1, help="processes; the images do not depend on it [1]")
    parser.add_argument("--flaws", action="store_true", help="spoil a few files and rows, as a real release has them")
    options = parser.parse_args(argv)
    scans = plan_scans(options.scans, options.scans_per_site)
    flaws = make_abide(
        options.out,
        scans,
        layout=options.layout,
        voxel_size_mm=options.voxel_size_mm,
        seed=options.seed,
        n_procs=options.n_procs,
        flaws=options.flaws,
    )
    print(f"{len(scans)} scans of {len(SITES)} sites: {options.out / raw_name(options.layout)}")
    print("\n".join(flaws))


if __name__ == "__main__":
    main()
