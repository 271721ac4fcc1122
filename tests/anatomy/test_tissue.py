"""Tissue segmentation against the phantom's true tissues, in both contrasts, and its errors."""

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage

from biascorr_pydra.anatomy import tissue
from biascorr_pydra.errors import (
    GridMismatchError,
    InvalidMaskError,
    InvalidParameterError,
    SegmentationError,
    UnknownMethodError,
)
from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods.deepnormalize import model
from biascorr_pydra.metrics import DSEG_LABELS, dice

EXAMPLES = Path(__file__).parents[2] / "bids_examples"
TRUTH = EXAMPLES / "phantom_truth" / "sub-02/ses-1/anat"


def corrected_scan(suffix: str):
    """An image of the phantom without its true field, its brain mask and its true segmentation."""
    img = nifti.load(EXAMPLES / "phantom" / f"sub-02/ses-1/anat/sub-02_ses-1_{suffix}.nii.gz")
    prefix = TRUTH / f"sub-02_ses-1{'' if suffix == 'T1w' else '_space-' + suffix}_"
    content = json.loads((TRUTH / f"sub-02_ses-1_desc-{suffix}_biasfield.json").read_text())
    spline = LogBiasSpline(np.array(content["LogBiasControlPoints"]), content["MeshFirst"], content["MeshLast"])
    img = nifti.save_like(img.get_fdata() / np.exp(spline.on_grid(img.shape)), img)
    mask, dseg = (nifti.load(f"{prefix}{ending}.nii.gz").get_fdata() for ending in ("desc-brain_mask", "dseg"))
    return img, mask > 0, dseg


def given_files(suffix: str = "T1w") -> dict:
    prefix = f"{TRUTH}/sub-02_ses-1{'' if suffix == 'T1w' else '_space-' + suffix}_"
    return {"dseg": f"{prefix}dseg.nii.gz", **{t: f"{prefix}label-{t}_probseg.nii.gz" for t in DSEG_LABELS}}


def overlap(dseg: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {name: dice(dseg == label, truth == label) for name, label in DSEG_LABELS.items()}


def steps(order=(40.0, 70.0, 100.0)) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Three slabs of noise about three means inside a mask."""
    rng = np.random.default_rng(0)
    data = np.repeat(order, 8)[:, None, None] + rng.normal(0, 3, (24, 20, 18))
    mask = np.zeros(data.shape, bool)
    mask[:, 2:-2, 2:-2] = True
    return nib.Nifti1Image(data.astype(np.float32), np.diag([2, 2, 2, 1.0])), mask


# When this was written, Dice for T1w was GM 0.924, WM 0.963, CSF 0.697 (atropos), and for T2w GM 0.912, WM 0.956, CSF
# 0.665. CSF in the sulci is thinner than a voxel: that is where the classes of intensity and the truth differ.
@pytest.mark.parametrize(("suffix", "method"), [("T1w", "atropos"), ("T2w", "kmeans")])
def test_tissues_of_the_phantom_are_found_in_both_contrasts(monkeypatch, tmp_path, suffix, method):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    img, mask, truth = corrected_scan(suffix)
    segmentation = tissue.segment_tissue(img, mask, method=method, suffix=suffix)
    scores = overlap(segmentation.dseg, truth)
    assert scores["GM"] > 0.9 and scores["WM"] > 0.95 and scores["CSF"] > 0.65
    assert segmentation.dseg.dtype == np.int8 and not segmentation.dseg[~mask].any()
    assert np.allclose(sum(segmentation.probseg.values())[mask], 1, atol=1e-3)
    assert all(not p[~mask].any() for p in segmentation.probseg.values())
    assert list(tmp_path.iterdir()) == []  # Atropos's own files are gone


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "method"), [("T1w", "kmeans"), ("T2w", "atropos")])
def test_tissues_of_the_phantom_the_other_way_round(suffix, method):
    img, mask, truth = corrected_scan(suffix)
    scores = overlap(tissue.segment_tissue(img, mask, method=method, suffix=suffix).dseg, truth)
    assert scores["GM"] > 0.9 and scores["WM"] > 0.95 and scores["CSF"] > 0.65


@pytest.mark.parametrize("method", ["atropos", "kmeans"])
@pytest.mark.parametrize(
    ("suffix", "darkest_first"),
    [("T1w", ("CSF", "GM", "WM")), ("T2w", ("WM", "GM", "CSF")), ("FLAIR", ("CSF", "WM", "GM"))],
)
def test_the_contrast_names_the_classes(method, suffix, darkest_first):
    img, mask = steps()
    segmentation = tissue.segment_tissue(img, mask, method=method, suffix=suffix)
    for k, name in enumerate(darkest_first):
        slab = np.zeros(mask.shape, bool)
        slab[8 * k : 8 * k + 8] = True
        assert dice(segmentation.dseg == DSEG_LABELS[name], slab & mask) > 0.99
        assert segmentation.probseg[name][slab & mask].mean() > 0.95
        assert segmentation.record["volumes_ml"][name] == pytest.approx((slab & mask).sum() * 0.008, rel=0.02)
    assert segmentation.record["order"] == list(darkest_first)


def blurred() -> tuple[nib.Nifti1Image, np.ndarray]:
    """Three tissues so noisy that many a voxel could be either of two."""
    rng = np.random.default_rng(2)
    data = np.repeat((40.0, 70.0, 100.0), 8)[:, None, None] + rng.normal(0, 18, (24, 20, 18))
    return nib.Nifti1Image(data.astype(np.float32), np.diag([2, 2, 2, 1.0])), np.ones(data.shape, bool)


@pytest.mark.parametrize("method", ["atropos", "kmeans"])
def test_the_same_scan_has_the_same_tissues_each_time(method):
    img, mask = blurred()
    first, second = (tissue.segment_tissue(img, mask, method=method, suffix="T1w") for _ in range(2))
    assert np.array_equal(first.dseg, second.dseg)
    for name in DSEG_LABELS:
        assert np.array_equal(first.probseg[name], second.probseg[name])


def test_classes_are_those_of_antspyx_own_function():
    import ants

    img, mask = blurred()
    values = np.clip(img.get_fdata(dtype=np.float32), *np.percentile(img.get_fdata(), (0.5, 99.5)))
    a, x = (ants.from_numpy(array.astype(np.float32), spacing=(2.0, 2.0, 2.0)) for array in (values, mask))
    expected = ants.atropos(a=a, x=x, i="Kmeans[3]", m="[0.2,1x1x1]", c="[5,0]", v=0, r=0)
    probseg = tissue.segment_tissue(img, mask, suffix="T1w").probseg
    for image, name in zip(expected["probabilityimages"], ("CSF", "GM", "WM"), strict=True):
        np.testing.assert_allclose(probseg[name], image.numpy(), atol=1e-5)


def test_the_temporary_folder_of_other_threads_stays_where_it_is(monkeypatch, tmp_path):
    import ants

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders, read = [], ants.image_read

    def while_another_thread_makes_a_folder(*arguments):
        folders.append(tempfile.mkdtemp())
        return read(*arguments)

    monkeypatch.setattr(ants, "image_read", while_another_thread_makes_a_folder)
    img, mask = steps()
    tissue.segment_tissue(img, mask, suffix="T1w")
    assert folders and all(Path(folder).is_dir() and Path(folder).parent == tmp_path for folder in folders)


# --- on which device


@pytest.fixture
def seen(monkeypatch):
    """The devices that DeepNormalize's networks are asked to run on; there seems to be a GPU."""
    devices = []

    def normalize_array(images, affine, mask, *, speed, device):
        devices.append(device)
        third = {name: np.full(mask.shape, 1 / 3, np.float32) for name in DSEG_LABELS}
        return model.Normalized(np.stack(images), third, mask, {"weights_sha256": "0" * 64})

    monkeypatch.setattr(model, "normalize_array", normalize_array)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    return devices


@pytest.mark.parametrize(("device", "expected"), [("cuda", "cuda"), ("auto", "cuda"), ("cpu", "cpu")])
def test_deepnormalize_segments_on_the_device_that_was_asked_for_and_says_so(seen, tmp_path, device, expected):
    img, mask = steps()
    nifti.save(img, tmp_path / "t1w.nii.gz")
    nifti.save(nifti.save_like(mask, img, dtype=np.uint8), tmp_path / "mask.nii.gz")
    made = tissue.segment_file(
        tmp_path / "t1w.nii.gz",
        tmp_path,
        mask_file=tmp_path / "mask.nii.gz",
        method="deepnormalize",
        suffix="T1w",
        device=device,
    )
    assert seen == [expected]
    assert json.loads(made.record_file.read_text())["device"] == expected


def test_a_gpu_that_is_not_there_is_refused_by_name(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    img, mask = steps()
    with pytest.raises(InvalidParameterError, match=r"no CUDA device is available.*'cuda'"):
        tissue.segment_tissue(img, mask, method="deepnormalize", suffix="T1w", device="cuda")


@pytest.mark.parametrize("axcodes", ["LAS", "LPS", "PIR", "SRA"])
def test_orientation_changes_nothing(axcodes):
    img, mask = steps()
    turn = ornt_transform(io_orientation(img.affine), axcodes2ornt(axcodes))
    expected = tissue.segment_tissue(img, mask, suffix="T1w")
    other_mask = np.asarray(nib.Nifti1Image(mask.astype(np.uint8), img.affine).as_reoriented(turn).dataobj) > 0
    segmentation = tissue.segment_tissue(img.as_reoriented(turn), other_mask, suffix="T1w")
    dseg = nib.Nifti1Image(expected.dseg.astype(np.uint8), img.affine).as_reoriented(turn)
    assert np.array_equal(segmentation.dseg, np.asarray(dseg.dataobj))
    gm = nib.Nifti1Image(expected.probseg["GM"], img.affine).as_reoriented(turn)
    assert np.array_equal(segmentation.probseg["GM"], np.asarray(gm.dataobj))


def test_voxels_that_are_not_finite_are_left_out():
    img, mask = steps()
    data = img.get_fdata()
    data[10, 10, 10], data[11, 10, 10] = np.nan, np.inf
    segmentation = tissue.segment_tissue(nib.Nifti1Image(data, img.affine), mask, suffix="T1w")
    assert segmentation.dseg[10, 10, 10] == segmentation.dseg[11, 10, 10] == 0
    assert segmentation.dseg[12, 10, 10] == DSEG_LABELS["GM"]


def test_a_tissue_that_is_hardly_there_is_a_warning():
    img, mask = steps()
    data = np.full(img.shape, 60.0) + np.random.default_rng(1).normal(0, 1, img.shape)
    data[:12] += 40
    data[0, 2:8] -= 90  # 1.6% of the mask
    record = tissue.segment_tissue(nib.Nifti1Image(data, img.affine), mask, suffix="T1w").record
    assert any("CSF" in warning for warning in record["warnings"])


def test_given_segmentation_is_taken_as_it_is():
    img, _, truth = corrected_scan("T1w")
    segmentation = tissue.segment_tissue(img, None, method="given", given=given_files())
    assert np.array_equal(segmentation.dseg, truth)
    assert set(segmentation.probseg) == {"GM", "WM", "CSF"}
    assert segmentation.record["volumes_ml"]["GM"] == pytest.approx((truth == 1).sum() * 0.008, abs=0.1)
    only = tissue.segment_tissue(img, None, method="given", given={"dseg": given_files()["dseg"]})
    assert np.array_equal(only.dseg, truth) and only.probseg is None


def test_given_probabilities_alone_make_a_segmentation():
    img, _, truth = corrected_scan("T1w")
    files = given_files()
    del files["dseg"]
    segmentation = tissue.segment_tissue(img, None, method="given", given=files)
    fractions = np.sort([nifti.load(file).get_fdata() for file in files.values()], axis=0)
    # The files have steps of 0.05, so that some voxels are a tie.
    total = fractions.sum(0)
    clear = (total < 0.4) | ((total > 0.6) & (fractions[2] - fractions[1] > 0.01))
    assert clear[truth > 0].mean() > 0.95
    assert np.array_equal(segmentation.dseg[clear], truth[clear])


def test_given_segmentation_of_another_grid_is_resampled():
    img, _, truth = corrected_scan("T2w")  # 3 mm slices; the T1w of the same head has 2 mm
    segmentation = tissue.segment_tissue(img, None, method="given", given=given_files("T1w"))
    scores = overlap(segmentation.dseg, truth)
    assert scores["GM"] > 0.85 and scores["WM"] > 0.85
    with pytest.raises(GridMismatchError, match="does not lie inside"):
        tissue.segment_tissue(steps()[0], None, method="given", given=given_files())


def test_given_labels_are_checked(tmp_path):
    img, mask = steps()
    file = tmp_path / "aseg.nii.gz"
    nifti.save(nib.Nifti1Image(np.where(mask, 41, 0).astype(np.uint8), img.affine), file)
    with pytest.raises(SegmentationError, match=r"aseg.*labels 0, 41"):
        tissue.segment_tissue(img, None, method="given", given={"dseg": file})
    with pytest.raises(InvalidParameterError, match="needs a dseg"):
        tissue.segment_tissue(img, None, method="given", given={"GM": file})


def test_an_unknown_contrast_is_not_guessed():
    img, mask = steps()
    for suffix in ("PDw", "T2starw", None):
        assert tissue.reason_against(suffix, "atropos") is not None
        with pytest.raises(SegmentationError, match=r"order of the tissues' intensities is not known"):
            tissue.segment_tissue(img, mask, suffix=suffix)
    assert tissue.reason_against("PDw", "given") is None
    assert tissue.reason_against("T1w", "atropos") is None
    assert "brain mask" in tissue.reason_against("T1w", "atropos", masked=False)


def test_unusable_requests_are_refused():
    img, mask = steps()
    assert tissue.segment_tissue(img, mask, method="none") is None
    with pytest.raises(UnknownMethodError, match=r"fast.*atropos, kmeans, deepnormalize, given, none"):
        tissue.segment_tissue(img, mask, method="fast", suffix="T1w")
    with pytest.raises(SegmentationError, match="needs a brain mask"):
        tissue.segment_tissue(img, None, suffix="T1w")
    with pytest.raises(InvalidMaskError, match="at least 1000 voxels"):
        tissue.segment_tissue(img, mask & (np.indices(mask.shape)[0] < 2), suffix="T1w")


def test_two_values_are_not_three_tissues():
    img, mask = steps()
    data = np.where(np.indices(mask.shape)[0] < 12, 40.0, 80.0)
    with pytest.raises(SegmentationError, match="three classes"):
        tissue.segment_tissue(nib.Nifti1Image(data, img.affine), mask, suffix="T1w")


def test_dark_skull_inside_a_generous_mask_is_not_taken_for_white_matter():
    # The template's outline of this T2w takes in skull; without a bound on darkness all of "WM" was skull (Dice 0.0).
    img, mask, truth = corrected_scan("T2w")
    generous = ndimage.binary_dilation(mask, iterations=3)
    segmentation = tissue.segment_tissue(img, generous, method="kmeans", suffix="T2w")
    assert dice(segmentation.dseg == DSEG_LABELS["WM"], truth == DSEG_LABELS["WM"]) > 0.9
