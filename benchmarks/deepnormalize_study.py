"""Make the study that DeepNormalize's tables are made from: sites of different contrast, with tissue segmentations.

    python benchmarks/deepnormalize_study.py OUT --labels FOLDER --abide FOLDER --lesjak FOLDER

OUT/train and OUT/test each hold one BIDS data set a site:

adult         stripped T1w (and T2w) heads simulated from label maps: the contrast of an adult at 3 T
isointense    the same label maps, other heads: gray and white matter nearly alike, and more noise, as in infants
abide         stripped T1w of ABIDE as LiviaNET distributes them (.mat, 1 mm); the segmentations are Atropos', made from
              the images after N4, as FreeSurfer's stood for the truth in the paper

lesjak        raw T1w of multiple sclerosis patients, with deepbet's mask, for testing only; Atropos' segmentations

Label maps 17 and 18 and ABIDE's image 7 are for testing only. Whoever holds out 16 and image 6 from training validates
on them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.io import loadmat

from biascorr_pydra.anatomy.brain import extract_brain
from biascorr_pydra.anatomy.tissue import segment_tissue
from biascorr_pydra.correction.correct import correct_image
from biascorr_pydra.images.files import write_text
from biascorr_pydra.images.nifti import load, save
from biascorr_pydra.metrics import DSEG_LABELS
from biascorr_pydra.simulation.heads import FIRST_EXTRA_CEREBRAL, GROUPS, HeadSampler, load_label_map, simulate_head

TEST_MAPS, TEST_ABIDE = ("seg_17", "seg_18"), ("7",)
# Group -> mean intensity (T1w, T2w) of a site; each head's is within a tenth of the range of all.
MEANS = {
    "adult": {
        "white matter": (0.92, 0.38),
        "brainstem": (0.86, 0.42),
        "grey matter": (0.63, 0.58),
        "limbic": (0.62, 0.58),
        "thalamus and pallidum": (0.78, 0.46),
        "striatum": (0.68, 0.52),
        "csf": (0.20, 0.95),
    },
    "isointense": {
        "white matter": (0.62, 0.66),
        "brainstem": (0.60, 0.62),
        "grey matter": (0.52, 0.54),
        "limbic": (0.51, 0.54),
        "thalamus and pallidum": (0.56, 0.58),
        "striatum": (0.53, 0.55),
        "csf": (0.24, 0.95),
    },
}
JITTER = {"adult": 0.03, "isointense": 0.02}
NOISE = {"adult": (0.01, 0.02), "isointense": (0.02, 0.035)}
TISSUES = {
    "GM": ("grey matter", "limbic", "thalamus and pallidum", "striatum"),
    "WM": ("white matter", "brainstem"),
    "CSF": ("csf",),
}
# FreeSurfer's conformed images are LIA; its Matlab reader swaps the first two axes.
CONFORMED = np.array([[0, -1.0, 0, 128], [0, 0, 1, -128], [-1, 0, 0, 128], [0, 0, 0, 1]])


def head(labels: torch.Tensor, site: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images by suffix and the segmentation (1 GM, 2 WM, 3 CSF) of one stripped head on cubes of 1 mm."""
    generator = torch.Generator().manual_seed(seed)
    sampler = HeadSampler(
        contrasts=("T1w",),
        max_rotation_degrees=10,
        max_elastic=0.02,
        blur=(0.05, 0.25),
        noise=NOISE[site],
        stripped=1.0,
        field_sd=(0.0, 0.04),
        field_spans=(1, 3),
        max_translation=0.0,
    )
    parameters = sampler.sample(generator)
    shape = tuple(labels.shape)
    # Voxels are cubes of 1 mm of a head that is up to 7% larger or smaller.
    size = 1 + 0.07 * (2 * torch.rand((), generator=generator).item() - 1)
    parameters = dataclasses.replace(parameters, field_of_view=(size,) * 3)
    images = {}
    for column, suffix in enumerate(("T1w", "T2w")):
        means = parameters.means.clone()
        for group, values in MEANS[site].items():
            shift = JITTER[site] * (2 * torch.rand((), generator=generator).item() - 1)
            means[list(GROUPS[group])] = values[column] + shift
        known = [number for numbers in GROUPS.values() for number in numbers]
        others = [number for number in range(1, FIRST_EXTRA_CEREBRAL) if number not in known]
        means[others] = MEANS[site]["grey matter"][column]
        made = simulate_head(labels, dataclasses.replace(parameters, means=means), shape)
        images[suffix] = (1000 * made.image * made.brain).numpy().astype(np.float32)
    dseg = np.where(made.brain.numpy(), DSEG_LABELS["GM"], 0).astype(np.uint8)
    for tissue, groups in TISSUES.items():
        dseg[np.isin(made.labels.numpy(), [n for group in groups for n in GROUPS[group]])] = DSEG_LABELS[tissue]
    return images, dseg


def abide(folder: Path, number: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One of ABIDE's images and Atropos' segmentation of it after N4."""
    data = loadmat(folder / "MR" / f"MR_Img{number}.mat")["vol"].astype(np.float32)
    img, mask = nib.Nifti1Image(data, CONFORMED), nib.Nifti1Image((data > 0).astype(np.uint8), CONFORMED)
    corrected = correct_image(img, method="n4", mask=mask, gate=False).corrected
    return {"T1w": data}, segment_tissue(corrected, data > 0, method="atropos", suffix="T1w").dseg


def lesjak(file: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """A T1w, stripped, Atropos' segmentation of it after N4, and its affine."""
    img = load(file)
    brain = extract_brain(img, method="deepbet", suffix="T1w").mask
    mask = nib.Nifti1Image(brain.astype(np.uint8), img.affine)
    corrected = correct_image(img, method="n4", mask=mask, gate=False).corrected
    dseg = segment_tissue(corrected, brain, method="atropos", suffix="T1w").dseg
    return {"T1w": np.asarray(img.dataobj, np.float32) * brain}, dseg, img.affine


def write_scan(root: Path, subject: str, images: Mapping[str, np.ndarray], dseg: np.ndarray, affine) -> None:
    """Images into a BIDS data set, the segmentation into its derivatives."""
    for folder, kind in ((root, {}), (root / "derivatives", {"DatasetType": "derivative"})):
        about = {"Name": root.name, "BIDSVersion": "1.11.0", **kind}
        if kind:
            about["GeneratedBy"] = [{"Name": "deepnormalize_study.py"}]
        (folder / f"sub-{subject}" / "anat").mkdir(parents=True, exist_ok=True)
        write_text(folder / "dataset_description.json", json.dumps(about))
    for suffix, data in images.items():
        save(nib.Nifti1Image(data, affine), root / f"sub-{subject}" / "anat" / f"sub-{subject}_{suffix}.nii.gz")
    derived = root / "derivatives" / f"sub-{subject}" / "anat" / f"sub-{subject}_dseg.nii.gz"
    save(nib.Nifti1Image(dseg.astype(np.uint8), affine), derived)


def name_sites(out: Path) -> None:
    """participants.tsv with the site of each participant, so that each data set can stand alone."""
    for root in sorted(path.parent for path in out.glob("*/*/dataset_description.json")):
        lines = [f"{path.name}\t{root.name}" for path in sorted(root.glob("sub-*"))]
        write_text(root / "participants.tsv", "\n".join(["participant_id\tsite", *lines, ""]))


def make_study(out: Path, labels: Path, abide_folder: Path | None, lesjak_folder: Path | None) -> None:
    """Write OUT/train and OUT/test; scans that are there are kept."""
    for number, file in enumerate(sorted(labels.glob("*.nii.gz"))):
        name = file.name.partition(".")[0]
        part = "test" if name in TEST_MAPS else "train"
        loaded = None
        for order, site in enumerate(MEANS):
            root = out / part / site
            subject = name.replace("_", "")
            if (root / "derivatives" / f"sub-{subject}" / "anat" / f"sub-{subject}_dseg.nii.gz").exists():
                continue
            loaded = load_label_map(file, voxel_size_mm=1.0) if loaded is None else loaded
            write_scan(root, subject, *head(loaded, site, 100 * order + number), np.diag([1.0, 1, 1, 1]))
            print(root / subject, flush=True)
    for file in sorted(abide_folder.glob("MR/*.mat")) if abide_folder else []:
        number = file.stem.removeprefix("MR_Img")
        root = out / ("test" if number in TEST_ABIDE else "train") / "abide"
        if (root / "derivatives" / f"sub-abide{number}" / "anat" / f"sub-abide{number}_dseg.nii.gz").exists():
            continue
        write_scan(root, f"abide{number}", *abide(abide_folder, number), CONFORMED)
        print(root / number, flush=True)
    for file in sorted(lesjak_folder.glob("*/*_T1W.nii.gz")) if lesjak_folder else []:
        subject = file.parent.name.replace("patient", "p") + file.name.partition("_")[0].replace("study", "s")
        root = out / "test" / "lesjak"
        if not (root / "derivatives" / f"sub-{subject}").exists():
            write_scan(root, subject, *lesjak(file))
            print(root / subject, flush=True)
    name_sites(out)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--labels", type=Path, required=True, help="folder of label maps (.nii.gz)")
    parser.add_argument("--abide", type=Path, help="LiviaNET's folder with MR/MR_Img1.mat ...")
    parser.add_argument("--lesjak", type=Path, help="Lesjak's folder with patient01/study1_T1W.nii.gz ...")
    given = parser.parse_args(argv)
    make_study(given.out, given.labels, given.abide, given.lesjak)


if __name__ == "__main__":
    main()
