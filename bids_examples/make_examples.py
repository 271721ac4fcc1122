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
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import nilearn.datasets
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage

from biascorr_pydra.images import files, nifti
from biascorr_pydra.images.field import LogBiasSpline

HERE = Path(__file__).parent
BIDS_VERSION = "1.11.0"
SEED = 2026
REAL_SHA256 = "577d1484b5376b3925e9a4141d9f4534b0f29e1df7feeea3427525a19b91c5d2"
REAL_NAME = "sub-01_ses-006_run-001_T1w"

# Mean intensities, in arbitrary units, of what the phantom is made of.
CONTRAST = {
    "T1w": {"GM": 58, "WM": 83, "CSF": 23, "skull": 9, "muscle": 40, "fat": 108, "eyes": 20, "air": 0},
    "T2w": {"GM": 60, "WM": 43, "CSF": 108, "skull": 8, "muscle": 23, "fat": 70, "eyes": 113, "air": 0},
}
NOISE_SIGMA = 1.7  # Rician, about 2% of white matter in T1w
FIELD_OF_VIEW_MM = ((-92.0, 92.0), (-124.0, 98.0), (-84.0, 98.0))
TISSUES = ("GM", "WM", "CSF")  # labels 1, 2, 3


@dataclass(frozen=True)
class Session:
    """One session of one subject, and what is particular about its images' grids and headers."""

    subject: str
    session: str
    age: int
    axcodes: str = "RAS"
    oblique_degrees: tuple[float, float] = (0.0, 0.0)  # about the x and the z axis
    scl_slope: float = 1.0
    slice_mm: dict[str, float] = field(default_factory=dict)
    field_range: float = 0.35  # spread of the log field between its 5th and 95th percentiles in the brain
    sidecars: dict[str, dict] = field(default_factory=dict)


SESSIONS = (
    Session("01", "1", 31),
    Session("01", "2", 32, axcodes="LAS", field_range=0.5),
    Session(
        "02",
        "1",
        45,
        scl_slope=2.5,
        slice_mm={"T2w": 3.0},
        sidecars={"T2w": {"MRAcquisitionType": "2D", "SliceThickness": 3.0}},
    ),
    Session(
        "03",
        "1",
        27,
        oblique_degrees=(9.0, 5.0),
        field_range=0.8,
        sidecars={"T1w": {"MagneticFieldStrength": 7.0}, "T2w": {"MagneticFieldStrength": 7.0}},
    ),
)


def rng_for(*keys: str) -> np.random.Generator:
    """A generator of its own for each subject, session and purpose, so that parts can be made alone."""
    return np.random.default_rng([SEED, *b"/".join(key.encode() for key in keys)])


# --- anatomy


@dataclass(frozen=True)
class Anatomy:
    """The template head. Maps are sampled at world coordinates (mm, RAS+) through the inverse of their affine."""

    maps: dict[str, np.ndarray]  # GM, WM, CSF fractions inside the brain, 1 mm
    affine: np.ndarray
    distances: dict[str, np.ndarray]  # signed distances in mm, positive outside: to the brain's envelope, to the skin
    distances_affine: np.ndarray


def load_anatomy() -> Anatomy:
    """Tissue fractions from the template's maps, and the head around them."""
    folder = Path(nilearn.datasets.__file__).parent / "data"
    read = {k: nib.load(folder / f"mni_icbm152_{k}_tal_nlin_sym_09a_converted.nii.gz") for k in ("t1", "gm", "wm")}
    gm, wm = (np.asarray(read[k].dataobj, np.float64) / 255 for k in ("gm", "wm"))
    brain = ndimage.binary_fill_holes(np.asarray(read["t1"].dataobj) > 0)
    # An average of 152 brains is blurred; the fourth power makes most voxels one tissue again.
    parts = [np.where(brain, part, 0) ** 4 for part in (gm, wm, np.clip(1 - gm - wm, 0, 1))]
    total = np.maximum(sum(parts), 1e-12)
    # Smoothing to the coarser grid's voxel size before sampling there keeps fine folds from aliasing.
    maps = {
        tissue: ndimage.gaussian_filter(np.where(brain, part / total, 0), 0.7)
        for tissue, part in zip(TISSUES, parts, strict=True)
    }
    return Anatomy(maps, read["t1"].affine, *head_around(brain, read["t1"].affine))


def head_around(brain: np.ndarray, affine: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Signed distances to the brain's smooth envelope and to the skin, on a 2 mm grid with room for a head."""
    margin = 40
    envelope = ndimage.binary_closing(np.pad(brain, margin)[::2, ::2, ::2], iterations=5)
    grid_affine = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    grid_affine[:3, 3] = affine[:3, 3] - margin
    x, y, z = world_grid(envelope.shape, grid_affine)
    to_envelope = signed_distance_mm(envelope, 2.0)
    face = (x / 60) ** 2 + ((y - 42) / 44) ** 2 + ((z + 52) / 66) ** 2 < 1
    neck = (x / 56) ** 2 + ((y + 28) / 62) ** 2 + (np.minimum(z + 55, 0) / 200) ** 2 < 1
    head = (to_envelope < 15) | face | (neck & (z < -30))
    head = ndimage.gaussian_filter(head.astype(np.float64), 3) > 0.5
    return {"brain": to_envelope, "skin": signed_distance_mm(head, 2.0)}, grid_affine


def signed_distance_mm(mask: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Distance to the mask's surface, negative inside."""
    outside, inside = (ndimage.distance_transform_edt(m) for m in (~mask, mask))
    return voxel_mm * (outside - inside)


def world_grid(shape, affine: np.ndarray) -> np.ndarray:
    """World coordinates of every voxel: array (3, I, J, K) in mm."""
    return np.einsum("ij,j...->i...", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]


def sample(array: np.ndarray, affine: np.ndarray, world: np.ndarray, outside: float = 0.0) -> np.ndarray:
    """Linear interpolation of an array at world coordinates (3, I, J, K)."""
    to_voxel = np.linalg.inv(affine)
    voxels = np.einsum("ij,j...->i...", to_voxel[:3, :3], world) + to_voxel[:3, 3, None, None, None]
    return ndimage.map_coordinates(array, voxels, order=1, mode="constant", cval=outside)


# --- subjects


def rotation(degrees) -> np.ndarray:
    """Rotation about the x, then the y, then the z axis: (3, 3)."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        turn = one @ turn
    return turn


def template_coordinates(world: np.ndarray, session: Session) -> np.ndarray:
    """Where in the template each scanner position lies: the head's position, then the subject's shape."""
    pose = rng_for(session.subject, session.session, "pose")
    shape = rng_for(session.subject, "shape")
    turned = rotation(pose.uniform(-3, 3, 3)) @ (world + pose.uniform(-3, 3, (3, 1, 1, 1))).reshape(3, -1)
    scale = np.diag(shape.uniform(0.95, 1.06, 3))
    shear = np.eye(3) + np.triu(shape.uniform(-0.03, 0.03, (3, 3)), 1)
    moved = (scale @ shear @ turned).reshape(world.shape)
    # The elastic part: four plane waves an axis, so that every grid over this subject sees the same anatomy.
    for axis in moved:
        for _ in range(4):
            wave = shape.normal(0, 1, 3)
            wave *= 2 * np.pi / shape.uniform(60, 130) / np.linalg.norm(wave)
            phase = np.tensordot(wave, turned.reshape(world.shape), 1) + shape.uniform(0, 2 * np.pi)
            axis += 1.2 * np.sin(phase)
    return moved


def fractions(anatomy: Anatomy, session: Session, shape, affine: np.ndarray) -> dict[str, np.ndarray]:
    """What each voxel is made of: name -> fraction, summing to 1."""
    at = template_coordinates(world_grid(shape, affine), session)
    parts = {tissue: sample(m, anatomy.affine, at) for tissue, m in anatomy.maps.items()}
    to_brain, to_skin = (sample(anatomy.distances[k], anatomy.distances_affine, at, 60.0) for k in ("brain", "skin"))
    x, y, z = at

    def within(distance, edge_mm):  # a soft step, one voxel wide
        return np.clip((edge_mm - distance) / 2 + 0.5, 0, 1)

    def ball(cx, cy, cz, *radii):
        squared = sum(((u - c) / r) ** 2 for u, c, r in zip((x, y, z), (cx, cy, cz), radii, strict=True))
        return within((np.sqrt(squared) - 1) * min(radii), 0)

    layers = {
        "rim": within(to_brain, 2.0),
        "skull": within(to_brain, 7.5 + 1.5 * np.sin(x / 23) * np.cos(y / 31)),
        "eyes": np.maximum(ball(-32, 66, -38, 12, 12, 12), ball(32, 66, -38, 12, 12, 12)),
        "air": ball(0, 54, -48, 13, 24, 22),
        "muscle": within(to_skin, -5.0),
        "fat": within(to_skin, 0.0),
    }
    left = np.clip(1 - sum(parts.values()), 0, 1)
    parts["air"] = np.zeros(shape)
    for name, layer in layers.items():
        target = "CSF outside" if name == "rim" else name
        parts[target] = parts.get(target, 0) + left * layer
        left = left * (1 - layer)
    parts["air"] += left
    return parts


# --- images


def grid_for(session: Session, suffix: str) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of an image: 2 mm, its slices as thick as the session says, in its orientation."""
    sizes = np.array([2.0, 2.0, session.slice_mm.get(suffix, 2.0)])
    low, high = np.array(FIELD_OF_VIEW_MM).T
    shape = np.floor((high - low) / sizes).astype(int)
    signs = np.array([1 if code == plus else -1 for code, plus in zip(session.axcodes, "RAS", strict=True)])
    about_x, about_z = session.oblique_degrees
    affine = np.eye(4)
    affine[:3, :3] = rotation((about_x, 0, about_z)) @ np.diag(signs * sizes)
    affine[:3, 3] = (low + high) / 2 - affine[:3, :3] @ ((shape - 1) / 2)
    return tuple(int(n) for n in shape), np.round(affine, 6)


def true_field(session: Session, suffix: str, shape, brain: np.ndarray) -> LogBiasSpline:
    """A smooth log field on 5 x 5 x 5 control points, scaled to the session's range in the brain."""
    rng = rng_for(session.subject, session.session, suffix, "field")
    lattice = LogBiasSpline.spanning(rng.normal(0, 1, (5, 5, 5)), shape)
    low, high = np.percentile(lattice.on_grid(shape, np.float64)[brain], (5, 95))
    # Six decimals: the file gives exactly the field that was applied.
    return LogBiasSpline.spanning(np.round(lattice.control_points * session.field_range / (high - low), 6), shape)


def render(parts: dict[str, np.ndarray], session: Session, suffix: str, log_bias: np.ndarray) -> np.ndarray:
    """Acquired intensities: tissue means with a fine texture, times the field, with Rician noise."""
    rng = rng_for(session.subject, session.session, suffix, "noise")
    means = {**CONTRAST[suffix], "CSF outside": CONTRAST[suffix]["CSF"]}
    clean = sum(means[name] * part for name, part in parts.items())
    texture = ndimage.gaussian_filter(rng.normal(0, 1, clean.shape), 1.0)
    clean = clean * (1 + 0.02 * texture / texture.std())
    real, imaginary = rng.normal(0, NOISE_SIGMA, (2, *clean.shape))
    return np.hypot(clean * np.exp(log_bias) + real, imaginary)


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
