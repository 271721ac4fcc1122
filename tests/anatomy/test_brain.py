"""Brain extraction against the phantom's true masks, in several orientations, and its errors."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from biascorr_pydra.anatomy import brain, deepbet, template
from biascorr_pydra.errors import (
    GridMismatchError,
    InvalidMaskError,
    InvalidParameterError,
    SegmentationError,
    UnknownMethodError,
)
from biascorr_pydra.images import nifti
from biascorr_pydra.metrics import dice

EXAMPLES = Path(__file__).parents[2] / "bids_examples"
FOUR_ORIENTATIONS = ("RAS", "LAS", "LPS", "PIR")


def scan_and_truth(subject: str, suffix: str):
    """An image of the phantom and its true brain mask."""
    place, name = f"sub-{subject}/ses-1/anat", f"sub-{subject}_ses-1"
    img = nifti.load(EXAMPLES / "phantom" / place / f"{name}_{suffix}.nii.gz")
    space = "" if suffix == "T1w" else f"_space-{suffix}"
    mask_file = EXAMPLES / "phantom_truth" / place / f"{name}{space}_desc-brain_mask.nii.gz"
    return img, mask_file, nifti.load_mask(mask_file, img)[0]


def reorient(img, axcodes: str):
    """The same image stored with other axes."""
    return img.as_reoriented(ornt_transform(io_orientation(img.affine), axcodes2ornt(axcodes)))


def small_image(shape=(20, 22, 24), affine=None):
    rng = np.random.default_rng(0)
    return nib.Nifti1Image(rng.uniform(1, 100, shape).astype(np.float32), np.eye(4) if affine is None else affine)


def test_deepbet_finds_the_true_brain_however_it_is_stored():
    img, _, truth = scan_and_truth("01", "T1w")
    extraction = brain.extract_brain(img, method="auto", suffix="T1w", device="cpu")
    assert extraction.method == "deepbet"
    assert dice(extraction.mask, truth) > 0.96  # 0.969 when this was written
    other = reorient(img, "PIR")
    again = brain.extract_brain(other, method="deepbet", device="cpu")
    stored = reorient(nib.Nifti1Image(extraction.mask.astype(np.uint8), img.affine), "PIR")
    assert np.array_equal(again.mask, np.asarray(stored.dataobj) > 0)
    assert again.record["volume_ml"] == pytest.approx(extraction.record["volume_ml"])
    assert extraction.record["software"] == {"deepbet": version("deepbet")}


@pytest.mark.slow
def test_template_finds_the_true_brain_however_it_is_stored_and_leaves_no_file(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    img, _, truth = scan_and_truth("02", "T2w")  # 3 mm slices
    extraction = brain.extract_brain(img, method="auto", suffix="T2w")
    assert extraction.method == "template"
    assert dice(extraction.mask, truth) > 0.955  # 0.968 when this was written
    assert extraction.record["warnings"] == []
    # Equal masks also say that a second run gives the same.
    monkeypatch.setenv("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "4")
    again = brain.extract_brain(reorient(img, "LPS"), method="template")
    stored = reorient(nib.Nifti1Image(extraction.mask.astype(np.uint8), img.affine), "LPS")
    assert np.array_equal(again.mask, np.asarray(stored.dataobj) > 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subject", "suffix"),
    [("01", "T1w"), ("01", "T2w"), ("03", "T1w"), ("03", "T2w")],  # 0.968, 0.958, 0.970, 0.969 when this was written
)
def test_template_finds_the_true_brain_in_oblique_images_and_strong_fields(subject, suffix):
    img, _, truth = scan_and_truth(subject, suffix)
    assert dice(brain.extract_brain(img, method="template").mask, truth) > 0.945


@pytest.mark.parametrize("axcodes", FOUR_ORIENTATIONS)
@pytest.mark.parametrize("method", ["deepbet", "template"])
def test_every_method_sees_ras_and_answers_in_the_images_own_axes(monkeypatch, axcodes, method):
    seen = []

    def extract(data, second, *, name):
        seen.append((data.copy(), second))
        return data > 50

    monkeypatch.setattr({"deepbet": deepbet, "template": template}[method], "find_brain", extract)
    affine = np.diag([6, 5, 7, 1.0])
    affine[:3, 3] = -60, -50, -80
    ras = small_image(affine=affine)
    img = reorient(ras, axcodes)
    extraction = brain.extract_brain(img, method=method)
    assert np.array_equal(seen[0][0], ras.get_fdata())
    if method == "template":  # deepbet works on voxels alone
        assert np.allclose(seen[0][1], affine)
    assert np.array_equal(extraction.mask, img.get_fdata() > 50)


def test_a_registration_that_fails_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SegmentationError, match=r"registration of the template failed.*exit status 1"):
        brain.extract_brain(small_image(affine=np.diag([9, 8, 9, 1.0])), method="template")


def test_given_mask_is_taken_as_it_is():
    img, mask_file, truth = scan_and_truth("02", "T2w")
    extraction = brain.extract_brain(img, method="given", mask_file=mask_file)
    assert np.array_equal(extraction.mask, truth)
    assert extraction.record["mask_file"] == mask_file.name and not extraction.record["resampled"]
    assert extraction.record["volume_ml"] == pytest.approx(truth.sum() * 2 * 2 * 3 / 1000, abs=0.1)


def test_given_mask_of_another_grid_is_resampled_and_said_so():
    img, _, truth = scan_and_truth("02", "T2w")
    _, mask_file, _ = scan_and_truth("02", "T1w")  # the same head at 2 mm
    extraction = brain.extract_brain(img, method="given", mask_file=mask_file)
    assert dice(extraction.mask, truth) > 0.98
    assert extraction.record["resampled"] and "resampled" in extraction.record["warnings"][0]


def test_none_is_none():
    assert brain.extract_brain(small_image(), method="none") is None


def test_auto_follows_the_suffix():
    expected = {"T1w": "deepbet", "UNIT1": "deepbet", "T2w": "template", "FLAIR": "template", None: "template"}
    assert {suffix: brain.resolve_method("auto", suffix) for suffix in expected} == expected
    assert brain.resolve_method("template", "T1w") == "template"


def test_unusable_requests_are_refused(tmp_path):
    img = small_image()
    with pytest.raises(UnknownMethodError, match=r"bet2.*auto, deepbet, template, given, none"):
        brain.extract_brain(img, method="bet2")
    with pytest.raises(InvalidParameterError, match="needs a mask file"):
        brain.extract_brain(img, method="given")
    with pytest.raises(InvalidParameterError, match="gpu0"):
        brain.extract_brain(img, method="deepbet", device="gpu0")
    empty, away = tmp_path / "empty.nii.gz", tmp_path / "away.nii.gz"
    nifti.save(nib.Nifti1Image(np.zeros(img.shape, np.uint8), img.affine), empty)
    far = np.eye(4)
    far[:3, 3] = 500
    nifti.save(nib.Nifti1Image(np.ones(img.shape, np.uint8), far), away)
    with pytest.raises(InvalidMaskError, match="empty"):
        brain.extract_brain(img, method="given", mask_file=empty)
    with pytest.raises(GridMismatchError, match="does not lie inside"):
        brain.extract_brain(img, method="given", mask_file=away)


def test_deepbet_on_no_head_is_a_clear_error():
    data = np.zeros((64, 64, 64), np.float32)
    data[5, 5, 5] = 1
    with pytest.raises(SegmentationError, match=r"found no brain|did not find a brain"):
        brain.extract_brain(nib.Nifti1Image(data, np.diag([3, 3, 3, 1.0])), method="deepbet", device="cpu")


@pytest.mark.parametrize(
    ("ml", "outcome"),
    [(0, "error"), (5, "error"), (3500, "error"), (300, "warning"), (2500, "warning"), (1400, "fine")],
)
def test_volume_decides_between_error_warning_and_fine(monkeypatch, ml, outcome):
    def extract(data, affine, *, name):
        mask = np.zeros(data.size, bool)
        mask[: ml // 5] = True
        return mask.reshape(data.shape)

    monkeypatch.setattr(template, "find_brain", extract)
    # Voxels of 5 ml.
    img = small_image(affine=np.diag([10, 20, 25, 1.0]))
    if outcome == "error":
        with pytest.raises(SegmentationError, match=f"{ml}.0 ml"):
            brain.extract_brain(img, method="template")
        return
    warnings = brain.extract_brain(img, method="template").record["warnings"]
    assert (warnings != []) == (outcome == "warning")
    assert all(f"{ml} ml" in warning for warning in warnings)


def test_import_is_cheap():
    code = (
        "import sys, biascorr_pydra.anatomy.brain, biascorr_pydra.anatomy.tissue; "
        "print([m for m in ('torch', 'ants', 'nilearn', 'deepbet') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
