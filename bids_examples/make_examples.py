"""Make the example data sets: a head phantom with known bias fields, its truth, and one real T1w at reduced size.

    python bids_examples/make_examples.py [--out DIR] [--participant-label 01 ...] [--real FILE]

The phantom is seeded: run again, it gives the same voxels. Its anatomy is the MNI152 2009a symmetric template (gray and
white matter maps, brain outline) that the Python package nilearn carries; nothing is downloaded. Around the brain stand
a rim of CSF, a dark skull, and a head with fat, muscle, eyes and a nasal cavity: brain extraction has work to do.

The real image is written only when its source is given with ``--real``:
tests/data/ds000031_sub-01_ses-006_run-001_T1w.nii.gz in the source distribution of the Python package pydeface 2.1.0
(`pip download --no-deps --no-binary :all: pydeface==2.1.0`). See README.md for origins and licences.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from phantom_head import (
    CONTRAST,
    SESSIONS,
    TISSUES,
    Anatomy,
    Session,
    fractions,
    grid_for,
    load_anatomy,
    render,
    true_field,
)
from scipy import ndimage

from biascorr_pydra.images import files, nifti

HERE = Path(__file__).parent
BIDS_VERSION = "1.11.0"
REAL_SHA256 = "577d1484b5376b3925e9a4141d9f4534b0f29e1df7feeea3427525a19b91c5d2"
REAL_NAME = "sub-01_ses-006_run-001_T1w"


def stored(data: np.ndarray, affine: np.ndarray, dtype, slope: float = 1.0) -> nib.Nifti1Image:
    """An image stored as integers times a slope, its two transforms set and alike."""
    values = np.round(np.asarray(data) / slope).astype(dtype)
    img = nib.Nifti1Image(values, affine)
    img.set_qform(affine, 1)
    img.set_sform(affine, 1)
    img.header.set_xyzt_units("mm", "sec")
    if slope != 1:
        img.header.set_slope_inter(slope, 0)  # nibabel then writes the integers as they are
    return img


def write_json(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(file, content)


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(file, text)


def write_session(anatomy: Anatomy, session: Session, phantom: Path, truth: Path) -> None:
    """The images of one session, and their truth."""
    entities = f"sub-{session.subject}_ses-{session.session}"
    raw, true = (root / f"sub-{session.subject}" / f"ses-{session.session}" / "anat" for root in (phantom, truth))
    raw.mkdir(parents=True, exist_ok=True)
    true.mkdir(parents=True, exist_ok=True)
    for suffix in CONTRAST:
        shape, affine = grid_for(session, suffix)
        parts = fractions(anatomy, session, shape, affine)
        tissues = np.stack([parts[tissue] for tissue in TISSUES])
        brain = tissues.sum(0) > 0.5
        spline = true_field(session, suffix, shape, brain)
        data = render(parts, session, suffix, spline.on_grid(shape, np.float64))
        nifti.save(
            stored(session.scl_slope * data, affine, np.int16, session.scl_slope), raw / f"{entities}_{suffix}.nii.gz"
        )
        if suffix in session.sidecars:
            write_json(raw / f"{entities}_{suffix}.json", session.sidecars[suffix])
        name = entities if suffix == "T1w" else f"{entities}_space-{suffix}"
        source = f"bids:raw:{raw.relative_to(phantom).as_posix()}/{entities}_{suffix}.nii.gz"
        write_truth(true, name, affine, brain, tissues, source)
        field_json = {
            "Description": "Natural logarithm of the bias field: control points of a uniform cubic B-spline",
            "Sources": [source],
            "LogBiasControlPoints": spline.control_points.tolist(),
            "MeshFirst": list(spline.first),
            "MeshLast": list(spline.last),
        }
        write_json(true / f"{entities}_desc-{suffix}_biasfield.json", field_json)


def write_truth(
    folder: Path, name: str, affine: np.ndarray, brain: np.ndarray, tissues: np.ndarray, source: str
) -> None:
    """Brain mask, discrete segmentation and tissue fractions of one image."""
    about = {"Sources": [source], "SpatialReference": source}
    dseg = np.where(brain, tissues.argmax(0) + 1, 0)
    nifti.save(stored(brain, affine, np.uint8), folder / f"{name}_desc-brain_mask.nii.gz")
    write_json(folder / f"{name}_desc-brain_mask.json", {"Type": "Brain", **about})
    nifti.save(stored(dseg, affine, np.uint8), folder / f"{name}_dseg.nii.gz")
    write_json(folder / f"{name}_dseg.json", {"Manual": False, **about})
    for tissue, fraction in zip(TISSUES, tissues, strict=True):
        # Steps of 1/20 keep the files small.
        nifti.save(stored(fraction, affine, np.uint8, 0.05), folder / f"{name}_label-{tissue}_probseg.nii.gz")
        write_json(folder / f"{name}_label-{tissue}_probseg.json", {"Manual": False, **about})


# --- data sets


def describe(folder: Path, name: str, licence: str, readme: str, **more) -> None:
    """dataset_description.json and README of a data set."""
    content = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "License": licence,
        "Authors": ["The biascorr_pydra developers"],
        **more,
    }
    write_json(folder / "dataset_description.json", content)
    write_text(folder / "README.md", readme)


def describe_phantom(phantom: Path, truth: Path) -> None:
    """What stands at the roots of the phantom and of its truth."""
    generated = [{"Name": "make_examples.py", "Description": "bids_examples/make_examples.py of biascorr_pydra"}]
    describe(phantom, "biascorr_pydra phantom", MNI_LICENCE, PHANTOM_README, GeneratedBy=generated)
    write_text(phantom / "CHANGES", "1.0.0 2026-11-21\n  - First version.\n")
    ages = {session.subject: session.age for session in reversed(SESSIONS)}
    rows = "".join(f"sub-{subject}\t{ages[subject]}\n" for subject in sorted(ages))
    write_text(phantom / "participants.tsv", f"participant_id\tage\n{rows}")
    write_json(phantom / "participants.json", {"age": {"Description": "Invented age", "Units": "year"}})
    common = {
        "Manufacturer": "simulated",
        "MagneticFieldStrength": 3.0,
        "ImageType": ["DERIVED", "PRIMARY", "SIMULATED"],
    }
    write_json(phantom / "T1w.json", {**common, "MRAcquisitionType": "3D", "RepetitionTime": 2.3, "EchoTime": 0.003})
    write_json(phantom / "T2w.json", {**common, "MRAcquisitionType": "3D", "RepetitionTime": 3.2, "EchoTime": 0.41})
    describe(
        truth,
        "biascorr_pydra phantom: truth",
        MNI_LICENCE,
        TRUTH_README,
        DatasetType="derivative",
        GeneratedBy=generated,
        SourceDatasets=[{"URL": "../phantom"}],
        DatasetLinks={"raw": "../phantom"},
    )
    write_text(truth / ".bidsignore", "*_biasfield.*\n")
    rows = "".join(f"{label}\t{tissue}\n" for label, tissue in enumerate(TISSUES, 1))
    write_text(truth / "dseg.tsv", f"index\tname\n{rows}")


def make_phantom(out: Path, participants=None) -> None:
    """Write ``phantom`` and ``phantom_truth`` under ``out``; all subjects, or those named."""
    phantom, truth = out / "phantom", out / "phantom_truth"
    describe_phantom(phantom, truth)
    anatomy = load_anatomy()
    for session in SESSIONS:
        if participants is None or session.subject in participants:
            write_session(anatomy, session, phantom, truth)


def make_real(out: Path, source: Path) -> None:
    """Write ``real_t1w`` under ``out``: the source at 2.2 times its voxel size, smoothed against aliasing first."""
    if files.sha256(source) != REAL_SHA256:
        raise SystemExit(f"{source}: not the file named at the top of this script (sha256 {REAL_SHA256}).")
    original = nib.load(source)
    factor = 2.2
    smooth = ndimage.gaussian_filter(original.get_fdata(), 0.4 * factor)
    shape = [int(n // factor) for n in original.shape]
    affine = original.affine @ np.diag([factor, factor, factor, 1])
    affine[:3, 3] = original.affine[:3] @ [*((factor - 1) / 2 * np.ones(3)), 1]
    small = resample_from_to(nib.Nifti1Image(smooth, original.affine), (shape, affine), order=1)
    header = original.header.copy()
    header.set_sform(affine, int(original.header["sform_code"]))
    header.set_qform(affine, int(original.header["qform_code"]))
    header.set_data_dtype(np.int16)
    folder = out / "real_t1w"
    describe(folder, "One real T1w at reduced size", "PDDL", REAL_README, Authors=REAL_AUTHORS, **REAL_LINKS)
    anat = folder / "sub-01" / "ses-006" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    data = np.round(small.get_fdata()).astype(np.int16)
    nifti.save(nib.Nifti1Image(data, None, header), anat / f"{REAL_NAME}.nii.gz")
    write_json(anat / f"{REAL_NAME}.json", {"RepetitionTime": 1.9, "EchoTime": 0.00249})


MNI_LICENCE = "Permissive, with a copyright notice: see README.md"
MNI_NOTICE = """
The anatomy derives from the MNI152 template: Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre,
Montreal Neurological Institute, McGill University. Permission to use, copy, modify, and distribute this software and
its documentation for any purpose and without fee is hereby granted, provided that the above copyright notice appear in
all copies. The authors and McGill University make no representations about the suitability of this software for any
purpose. It is provided "as is" without express or implied warranty.
"""

PHANTOM_README = f"""# Phantom heads with known bias fields

Simulated T1w and T2w images of three invented subjects, made by `make_examples.py` from the MNI152 template's tissue
maps. The bias fields that were applied, the brain masks and the segmentations are in the data set `phantom_truth`.
Subject 01 has two sessions (the second stored right to left), subject 02 scaled integers and a T2w of 3 mm slices,
subject 03 oblique slices and a stronger field. No person was scanned; ages and acquisition parameters are invented.
{MNI_NOTICE}"""

TRUTH_README = f"""# Truth of the phantom heads

For each image of `phantom`: brain mask, segmentation (1 GM, 2 WM, 3 CSF), tissue fractions, and the bias field that was
applied. Names without `space` belong to the T1w, names with `space-T2w` to the T2w of the same session.

`*_biasfield.json` keeps the natural logarithm of the field as control points of a uniform cubic B-spline. The mesh
begins at voxel index `MeshFirst` and ends at `MeshLast` on each axis of the image. With
`biascorr_pydra.images.field.LogBiasSpline`, the field is
`LogBiasSpline(np.array(d["LogBiasControlPoints"]), d["MeshFirst"], d["MeshLast"]).on_grid(shape)`.
{MNI_NOTICE}"""

REAL_AUTHORS = ["Russell A. Poldrack", "The MyConnectome project"]
REAL_LINKS = {
    "ReferencesAndLinks": ["https://openneuro.org/datasets/ds000031", "https://doi.org/10.1038/ncomms9885"],
    "SourceDatasets": [{"URL": "https://openneuro.org/datasets/ds000031"}],
}
REAL_README = """# One real T1w at reduced size

Session 006, run 001 of the MyConnectome project (OpenNeuro ds000031), smoothed and sampled at 2.2 times its voxel size.
Released by its authors under the Public Domain Dedication and License 1.0. The parent folder's README says where the
file and its licence were found.
"""


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the data sets (default: this script's)")
    parser.add_argument("--participant-label", nargs="+", help="make these phantom subjects only")
    parser.add_argument("--real", type=Path, metavar="FILE", help="source of the real T1w; without it that one is left")
    options = parser.parse_args(argv)
    make_phantom(options.out, options.participant_label)
    if options.real:
        make_real(options.out, options.real)


if __name__ == "__main__":
    main()
