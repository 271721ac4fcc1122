"""A small data set of phantoms, and running the cohort workflow on it: fixtures that several test files share."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_phantom
from forked import PYDRA, program

from biascorr_pydra.images import nifti

WORKFLOW = Path(__file__).parents[1] / "workflows" / "correct_bids.py"
WITHOUT = ("--skull-strip", "none", "--segmentation", "none")
SCANS = ["sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz"]


@pytest.fixture(scope="session")
def phantoms():
    return [make_phantom((32, 36, 30), 6.0, seed=seed) for seed in range(3)]


@pytest.fixture
def dataset(tmp_path, phantoms):
    """Three participants with a T1w each, and a derivative data set with their true masks and segmentations."""
    raw, truth = tmp_path / "raw", tmp_path / "truth"
    description = {"Name": "phantoms", "BIDSVersion": "1.11.0", "License": "CC0"}
    for scan, phantom in zip(SCANS, phantoms, strict=True):
        for root in (raw, truth):
            (root / scan).parent.mkdir(parents=True)
        nifti.save(phantom.image(), raw / scan)
        stem = scan.removesuffix("_T1w.nii.gz")
        nifti.save(phantom.image(phantom.brain, np.uint8), truth / f"{stem}_desc-brain_mask.nii.gz")
        nifti.save(phantom.image(phantom.dseg, np.uint8), truth / f"{stem}_dseg.nii.gz")
    (raw / "dataset_description.json").write_text(json.dumps(description))
    (raw / "README").write_text("Phantoms made by a test.\n")
    description |= {"DatasetType": "derivative", "GeneratedBy": [{"Name": "test"}]}
    (truth / "dataset_description.json").write_text(json.dumps(description))
    return raw


def run(dataset, *arguments, worker="debug", out="out"):
    folder = dataset.parent
    given = ("--skull-strip", "given", "--segmentation", "given", "--derivatives", str(folder / "truth"))
    inputs = ("--bids-dir", str(dataset), "--out-dir", str(folder / out), "--worker", worker)
    masks = () if "--skull-strip" in arguments else given
    pages = () if "--scan-pages" in arguments else ("--no-scan-pages",)  # they take most of a small cohort's time
    method = () if "--method" in arguments else ("--method", "n4")  # these phantoms are no heads
    return program(PYDRA, "run", WORKFLOW, *inputs, *masks, *pages, *method, *arguments, cwd=folder)


def states(dataset, out="out"):
    lines = (dataset.parent / out / "status.tsv").read_text().splitlines()[1:]
    return [line.split("\t")[2] for line in lines]
