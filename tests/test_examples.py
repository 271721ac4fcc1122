"""The example data sets: made again they are the same, they are valid BIDS, and their truth is true."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline

EXAMPLES = Path(__file__).parents[1] / "bids_examples"
SCANS = sorted((EXAMPLES / "phantom").glob("sub-*/ses-*/anat/*.nii.gz"))


def truth_of(scan: Path, ending: str) -> Path:
    folder = EXAMPLES / "phantom_truth" / scan.parent.relative_to(EXAMPLES / "phantom")
    entities, suffix = scan.name.removesuffix(".nii.gz").rsplit("_", 1)
    return folder / f"{entities}{'' if suffix == 'T1w' else '_space-' + suffix}_{ending}"


def field_of(scan: Path) -> LogBiasSpline:
    entities, suffix = scan.name.removesuffix(".nii.gz").rsplit("_", 1)
    content = json.loads((truth_of(scan, "x").parent / f"{entities}_desc-{suffix}_biasfield.json").read_text())
    return LogBiasSpline(np.array(content["LogBiasControlPoints"]), content["MeshFirst"], content["MeshLast"])


def test_the_seeded_script_makes_the_committed_files_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the folder of examples stays as it is committed
    # Subject 02 has the scaled type, the thick slices and a sidecar of its own.
    made = runpy.run_path(str(EXAMPLES / "make_examples.py"))["make_phantom"]
    made(tmp_path, ["02"])
    files = [file for file in sorted(tmp_path.rglob("*")) if file.is_file()]
    assert sum(file.name.endswith(".nii.gz") for file in files) == 12
    for file in files:
        committed = EXAMPLES / file.relative_to(tmp_path)
        if file.name.endswith(".nii.gz"):
            one, other = nib.load(file), nib.load(committed)
            assert one.header == other.header
            assert np.array_equal(one.dataobj.get_unscaled(), other.dataobj.get_unscaled())
        else:
            assert file.read_bytes() == committed.read_bytes()


@pytest.mark.parametrize("dataset", ["phantom", "phantom_truth", "real_t1w"])
def test_bids_validator_finds_no_error(dataset):
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    validator = shutil.which("bids-validator-deno", path=folders)
    run = subprocess.run([validator, EXAMPLES / dataset, "--json"], capture_output=True)
    issues = json.loads(run.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert run.returncode == 0


def test_together_they_stay_under_10_megabytes():
    assert sum(file.stat().st_size for file in EXAMPLES.rglob("*") if file.is_file()) < 10e6


@pytest.mark.parametrize("scan", SCANS, ids=lambda scan: scan.name)
def test_truth_fits_its_image(scan):
    img = nifti.load(scan)
    mask, resampled = nifti.load_mask(truth_of(scan, "desc-brain_mask.nii.gz"), img)
    assert not resampled
    dseg = np.asarray(nifti.load(truth_of(scan, "dseg.nii.gz")).dataobj)
    assert np.array_equal(dseg > 0, mask)
    probabilities = [
        nifti.load(truth_of(scan, f"label-{tissue}_probseg.nii.gz")).get_fdata() for tissue in ("GM", "WM", "CSF")
    ]
    top = np.max(probabilities, 0)
    assert np.all(np.choose(np.maximum(dseg, 1) - 1, probabilities)[mask] >= top[mask])
    # Divided by the true field, each tissue becomes more uniform, and the tissues lie in the order of their contrast.
    data = img.get_fdata()
    true = data / np.exp(field_of(scan).on_grid(img.shape))
    pure = {label: (dseg == label) & (top > 0.97) for label in (1, 2, 3)}
    for label in (1, 2):
        raw_cv, cv = (a[pure[label]].std() / a[pure[label]].mean() for a in (data, true))
        assert cv < 0.07 < 0.08 < raw_cv
    gm, wm, csf = (np.median(true[pure[label]]) for label in (1, 2, 3))
    assert csf < gm < wm if scan.name.endswith("T1w.nii.gz") else wm < gm < csf


def test_headers_differ_as_the_readme_says():
    by_name = {scan.name.split(".")[0]: nifti.load(scan) for scan in SCANS}
    assert len(by_name) == 8
    assert nib.aff2axcodes(by_name["sub-01_ses-1_T1w"].affine) == ("R", "A", "S")
    assert nib.aff2axcodes(by_name["sub-01_ses-2_T1w"].affine) == ("L", "A", "S")
    assert by_name["sub-02_ses-1_T1w"].dataobj.slope == 2.5
    assert by_name["sub-02_ses-1_T1w"].get_data_dtype() == np.int16
    assert nifti.voxel_size_mm(by_name["sub-02_ses-1_T2w"]) == pytest.approx((2, 2, 3))
    assert np.rad2deg(nib.affines.obliquity(by_name["sub-03_ses-1_T1w"].affine)).max() > 8


def test_the_field_differs_from_image_to_image_and_has_the_stated_range():
    ranges = {}
    for scan in SCANS:
        mask, _ = nifti.load_mask(truth_of(scan, "desc-brain_mask.nii.gz"), nifti.load(scan))
        low, high = np.percentile(field_of(scan).on_grid(mask.shape)[mask], (5, 95))
        ranges[scan.name] = high - low
    expected = {"sub-01_ses-1": 0.35, "sub-01_ses-2": 0.5, "sub-02_ses-1": 0.35, "sub-03_ses-1": 0.8}
    assert ranges == pytest.approx({scan.name: expected[scan.name.rsplit("_", 1)[0]] for scan in SCANS}, abs=1e-3)
    lattices = [field_of(scan).control_points.ravel() for scan in SCANS]
    assert np.abs(np.corrcoef(lattices) - np.eye(len(SCANS))).max() < 0.3
