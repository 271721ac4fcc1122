"""correct_image, correct_file and apply_file against the phantom's truth, and every refusal."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from conftest import make_phantom, reorient

from biascorr_pydra.correction.apply import apply_file
from biascorr_pydra.correction.correct import correct_image
from biascorr_pydra.errors import (
    BiasCorrError,
    GridMismatchError,
    InvalidImageError,
    InvalidMaskError,
    InvalidParameterError,
    OutputError,
    OutputExistsError,
    UnknownMethodError,
    UnreadableImageError,
)
from biascorr_pydra.images import files, nifti
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.metrics import residual_cov
from biascorr_pydra.single import correct_file


def test_n4_recovers_the_phantoms_field(phantom):
    mask = phantom.image(phantom.brain, np.uint8)
    result = correct_image(phantom.image(), method="n4", mask=mask)
    before = residual_cov(np.ones_like(phantom.bias), phantom.bias, phantom.brain)
    after = residual_cov(result.bias.get_fdata(), phantom.bias, phantom.brain)
    assert before > 0.1
    assert after < 0.25 * before


def test_field_has_mean_one_in_the_mask_and_acquired_is_corrected_times_bias(phantom):
    result = correct_image(phantom.image(), mask=phantom.image(phantom.brain, np.uint8))
    bias, corrected = result.bias.get_fdata(), result.corrected.get_fdata()
    assert bias[phantom.brain].mean() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(corrected * bias, phantom.acquired, rtol=1e-5, atol=1e-3)
    assert result.correction.scaled_over == "given mask"


def test_without_a_mask_the_field_has_mean_one_over_the_detected_head(phantom):
    result = correct_image(phantom.image(), method="n4")
    head = detect_head(phantom.acquired)
    assert result.bias.get_fdata()[head].mean() == pytest.approx(1, abs=1e-6)
    assert result.correction.scaled_over == "detected head"


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "oblique"])
@pytest.mark.parametrize("method", ["n4", pytest.param("deepem", marks=pytest.mark.slow)])
def test_header_is_kept_and_the_field_follows_the_voxels(tmp_path, phantom, codes, method):
    img = reorient(phantom.image(), codes)
    img.header["descrip"] = b"by hand"
    mask = reorient(phantom.image(phantom.brain, np.uint8), codes)
    nifti.save(img, tmp_path / "in.nii.gz")
    nifti.save(mask, tmp_path / "mask.nii.gz")
    correct_file(
        tmp_path / "in.nii.gz",
        tmp_path / "out.nii.gz",
        mask_file=tmp_path / "mask.nii.gz",
        bias_file=tmp_path / "b.nii.gz",
        method=method,
    )
    source = nib.load(tmp_path / "in.nii.gz")
    for name in ("out.nii.gz", "b.nii.gz"):
        written = nib.load(tmp_path / name)
        assert written.get_data_dtype() == np.float32
        for key in ("qform_code", "sform_code", "descrip", "xyzt_units", "pixdim", "srow_x", "srow_y", "srow_z"):
            np.testing.assert_array_equal(written.header[key], source.header[key], err_msg=key)
    truth = reorient(phantom.image(phantom.bias), codes).get_fdata()
    inside = np.asarray(mask.dataobj) > 0
    estimated = nib.load(tmp_path / "b.nii.gz").get_fdata()
    assert residual_cov(estimated, truth, inside) < 0.3 * residual_cov(np.ones_like(truth), truth, inside)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_data_types_give_the_same_field(tmp_path, phantom, dtype):
    values = np.clip(np.round(phantom.acquired / 8), 0, 255)
    mask = phantom.image(phantom.brain, np.uint8)
    estimated = correct_image(phantom.image(values, dtype), mask=mask, method="n4").bias.get_fdata()
    expected = correct_image(phantom.image(values, np.float32), mask=mask, method="n4").bias.get_fdata()
    np.testing.assert_array_equal(estimated, expected)


def test_thick_slices(phantom):
    thick = phantom.acquired[:, :, ::2], phantom.bias[:, :, ::2], phantom.brain[:, :, ::2]
    affine = phantom.affine @ np.diag([1, 1, 2, 1])
    img, mask = nib.Nifti1Image(thick[0], affine), nib.Nifti1Image(thick[2].astype(np.uint8), affine)
    estimated = correct_image(img, mask=mask, method="n4").bias.get_fdata()
    assert residual_cov(estimated, thick[1], thick[2]) < 0.4 * residual_cov(np.ones_like(estimated), thick[1], thick[2])


def test_odd_voxels_are_handled_and_recorded(phantom):
    data = phantom.acquired.copy()
    data[20:24, 28, 22] = [np.nan, np.inf, -5, 0]
    mask = phantom.image(phantom.brain, np.uint8)
    result = correct_image(phantom.image(data), mask=mask, method="n4")
    clean = correct_image(phantom.image(), mask=mask, method="n4")
    np.testing.assert_allclose(result.bias.get_fdata(), clean.bias.get_fdata(), rtol=0.01)
    corrected = result.corrected.get_fdata()
    assert corrected[20, 28, 22] == 0 and corrected[21, 28, 22] == 0 and corrected[23, 28, 22] == 0
    assert corrected[22, 28, 22] < 0
    counts = result.correction.intensities
    assert (counts["n_nan"], counts["n_infinite"], counts["n_negative"]) == (1, 1, 1)
    assert any("NaN" in warning for warning in result.correction.warnings)


def test_record_names_everything_that_the_result_depends_on(tmp_path, phantom_file):
    record = correct_file(phantom_file, tmp_path / "out.nii.gz", record_file=tmp_path / "r.json", method="n4")
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["in_sha256"] == files.sha256(phantom_file) == record.in_sha256
    assert written["method"] == "n4" and written["parameters"] == json.loads(json.dumps(record.parameters))
    assert {"biascorr_pydra", "numpy", "torch"} <= set(written["software"])
    assert {"read", "inspect", "estimate", "gate", "apply", "encode"} == set(written["runtime_s"])


# --- applying a field


def test_apply_inverts_the_field_of_every_volume(tmp_path, phantom):
    nifti.save(phantom.image(phantom.bias), tmp_path / "bias.nii.gz")
    series = np.stack([phantom.true * phantom.bias * k for k in (1, 2, 3)], axis=-1)
    nifti.save(phantom.image(series), tmp_path / "series.nii.gz")
    apply_file(tmp_path / "bias.nii.gz", tmp_path / "series.nii.gz", tmp_path / "out.nii.gz")
    out = nifti.load(tmp_path / "out.nii.gz").get_fdata()
    for k in (1, 2, 3):
        np.testing.assert_allclose(out[..., k - 1], phantom.true * k, rtol=1e-5, atol=1e-3)


def test_applying_the_field_that_was_written_gives_the_corrected_bytes(tmp_path, phantom_file):
    correct_file(phantom_file, tmp_path / "a.nii.gz", bias_file=tmp_path / "bias.nii.gz", method="n4")
    apply_file(tmp_path / "bias.nii.gz", phantom_file, tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_apply_refuses_another_grid_and_a_field_with_zeros(tmp_path, phantom, phantom_file):
    nifti.save(make_phantom((20, 20, 20)).image(), tmp_path / "small.nii.gz")
    with pytest.raises(GridMismatchError, match="same grid"):
        apply_file(tmp_path / "small.nii.gz", phantom_file, tmp_path / "out.nii.gz")
    nifti.save(phantom.image(phantom.brain), tmp_path / "zeros.nii.gz")
    with pytest.raises(InvalidImageError, match="positive and finite"):
        apply_file(tmp_path / "zeros.nii.gz", phantom_file, tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


# --- refusals: one clear error, and nothing written


@pytest.fixture
def bad_input(request, tmp_path, phantom):
    """A file that cannot be corrected, by kind."""
    path = tmp_path / "bad.nii.gz"
    kind = request.param
    if kind == "truncated":
        nifti.save(phantom.image(), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "not nifti":
        path.write_bytes(b"<html>404</html>")
    elif kind == "empty file":
        path.write_bytes(b"")
    elif kind == "missing":
        pass
    else:
        values = {
            "all zero": np.zeros(phantom.acquired.shape),
            "constant": np.full(phantom.acquired.shape, 3),
            "all NaN": np.full(phantom.acquired.shape, np.nan),
            "2-D": phantom.acquired[:, :, 20],
            "4-D": np.stack([phantom.acquired] * 2, -1),
        }[kind]
        nifti.save(phantom.image(values), path)
    return path


REFUSED = {
    "truncated": (UnreadableImageError, "gzip"),
    "not nifti": (UnreadableImageError, "gzip"),
    "empty file": (UnreadableImageError, "not a NIfTI"),
    "missing": (UnreadableImageError, "no such file"),
    "all zero": (InvalidImageError, "same value"),
    "constant": (InvalidImageError, "same value"),
    "all NaN": (InvalidImageError, "finite"),
    "2-D": (InvalidImageError, "3-D"),
    "4-D": (InvalidImageError, "biascorr apply"),
}


@pytest.mark.parametrize("bad_input", REFUSED, indirect=True)
def test_bad_images(bad_input, request, tmp_path):
    error, words = REFUSED[request.node.callspec.params["bad_input"]]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=words) as caught:
        correct_file(bad_input, tmp_path / "out.nii.gz", bias_file=tmp_path / "bias.nii.gz")
    assert "bad.nii.gz" in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_bad_masks(tmp_path, phantom, phantom_file):
    nifti.save(phantom.image(np.zeros_like(phantom.brain), np.uint8), tmp_path / "empty.nii.gz")
    with pytest.raises(InvalidMaskError, match=r"empty.nii.gz: the mask is empty"):
        correct_file(phantom_file, tmp_path / "out.nii.gz", mask_file=tmp_path / "empty.nii.gz")
    far = phantom.affine.copy()
    far[:3, 3] += 500
    nifti.save(nib.Nifti1Image(phantom.brain.astype(np.uint8), far), tmp_path / "far.nii.gz")
    with pytest.raises(GridMismatchError, match=r"far.nii.gz: the mask does not lie inside"):
        correct_file(phantom_file, tmp_path / "out.nii.gz", mask_file=tmp_path / "far.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


def test_a_mask_on_another_grid_is_resampled_and_said_so(tmp_path, phantom, phantom_file):
    fine = nib.Nifti1Image(
        np.repeat(phantom.brain, 2, axis=0).astype(np.uint8),
        phantom.affine @ np.array([[0.5, 0, 0, -0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    )
    nifti.save(fine, tmp_path / "fine.nii.gz")
    record = correct_file(phantom_file, tmp_path / "out.nii.gz", mask_file=tmp_path / "fine.nii.gz", method="n4")
    assert record.mask_resampled and record.n_mask_voxels == phantom.brain.sum()
    assert any("resampled" in warning for warning in record.warnings)


def test_outputs_are_never_lost(tmp_path, phantom_file):
    with pytest.raises(OutputError, match="same file"):
        correct_file(phantom_file, phantom_file, overwrite=True)
    (tmp_path / "there.nii.gz").write_text("precious")
    with pytest.raises(OutputExistsError, match="the output exists"):
        correct_file(phantom_file, tmp_path / "there.nii.gz")
    with pytest.raises(OutputExistsError, match="the output exists"):
        correct_file(phantom_file, tmp_path / "new.nii.gz", bias_file=tmp_path / "there.nii.gz")
    assert (tmp_path / "there.nii.gz").read_text() == "precious"
    assert not (tmp_path / "new.nii.gz").exists()
    with pytest.raises(OutputError, match="does not exist"):
        correct_file(phantom_file, tmp_path / "no" / "out.nii.gz")
    with pytest.raises(InvalidParameterError, match="name of its own"):
        correct_file(phantom_file, tmp_path / "x.nii.gz", bias_file=tmp_path / "x.nii.gz")
    correct_file(phantom_file, tmp_path / "there.nii.gz", method="n4", overwrite=True)
    assert nifti.load(tmp_path / "there.nii.gz").shape == (48, 56, 44)


def test_unwritable_folder(tmp_path, phantom_file, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match=r"not writable.*permissions"):
        correct_file(phantom_file, tmp_path / "out.nii.gz")


def test_wrong_choices(phantom):
    with pytest.raises(UnknownMethodError, match=r"'n5'.*ants-n4, .*getnet, implicit, n4"):
        correct_image(phantom.image(), method="n5")
    with pytest.raises(InvalidParameterError, match="no preset"):
        correct_image(phantom.image(), preset="best")
    with pytest.raises(InvalidParameterError, match="no parameter"):
        correct_image(phantom.image(), options={"strength": 3})
    with pytest.raises(InvalidParameterError, match=r"option device is one of auto, cpu, cuda\. Got: 'tpu'"):
        correct_image(phantom.image(), device="tpu")


def test_errors_survive_the_way_between_processes():
    import pickle

    error = GridMismatchError("rule", file="a.nii", value=3, next_step="do this")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "a.nii: rule. Got: 3. do this."
    assert isinstance(again, ValueError) and isinstance(again, BiasCorrError)


def test_naming_the_package_loads_neither_torch_nor_antspyx():
    code = "import sys, biascorr_pydra.interfaces.cli.main\n"
    code += "sys.exit(any(m in sys.modules for m in ('torch', 'ants', 'pydra', 'bids')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- weight images and rescaling, as ANTs' N4 has them


def test_a_weight_image_decides_where_the_field_is_estimated(tmp_path, phantom, phantom_file):
    weight = np.where(phantom.dseg == 2, 1.0, 0.0)
    nifti.save(phantom.image(weight), tmp_path / "weight.nii.gz")
    nifti.save(phantom.image(phantom.dseg == 2, np.uint8), tmp_path / "mask.nii.gz")
    nifti.save(phantom.image(phantom.brain, np.uint8), tmp_path / "brain.nii.gz")
    outputs = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    weighted = {"mask_file": tmp_path / "brain.nii.gz", "weight_file": tmp_path / "weight.nii.gz"}
    record = correct_file(phantom_file, outputs[0], method="n4", **weighted)
    correct_file(phantom_file, outputs[1], method="n4", mask_file=tmp_path / "mask.nii.gz")
    assert record.weight_sha256 == files.sha256(tmp_path / "weight.nii.gz")
    # the same field up to its scale, which follows the mask
    ratio = nifti.load(outputs[0]).get_fdata() / np.maximum(nifti.load(outputs[1]).get_fdata(), 1e-6)
    inside = ratio[phantom.brain]
    assert inside.std() / inside.mean() < 1e-4


def test_weight_images_that_cannot_be_used(tmp_path, phantom):
    with pytest.raises(InvalidParameterError, match="'ubc' takes no weight image"):
        correct_image(phantom.image(), method="ubc", weight=phantom.image())
    with pytest.raises(GridMismatchError, match="weight image must be on the image's grid"):
        correct_image(phantom.image(), method="n4", weight=make_phantom((20, 20, 20)).image())
    with pytest.raises(InvalidMaskError, match="the weight image is empty"):
        correct_image(phantom.image(), method="n4", weight=phantom.image(np.zeros(phantom.acquired.shape)))


def test_rescaling_gives_the_input_range_in_the_mask_and_says_so_without_one(phantom):
    mask = phantom.image(phantom.brain, np.uint8)
    result = correct_image(phantom.image(), method="n4", preset="ants", mask=mask)
    rescaled = result.corrected.get_fdata()[phantom.brain]
    acquired = phantom.acquired[phantom.brain]
    assert (rescaled.min(), rescaled.max()) == pytest.approx((acquired.min(), acquired.max()), rel=1e-5)
    warned = correct_image(phantom.image(), method="n4", preset="ants").correction.warnings
    assert any("rescale needs a mask" in warning for warning in warned)


def test_apply_names_what_is_wrong_with_its_inputs(tmp_path, phantom, phantom_file):
    nifti.save(phantom.image(np.stack([phantom.bias] * 2, -1)), tmp_path / "series.nii.gz")
    with pytest.raises(InvalidImageError, match=r"series.nii.gz: a bias field has three axes.*BIAS IN OUT"):
        apply_file(tmp_path / "series.nii.gz", phantom_file, tmp_path / "out.nii.gz")
    nifti.save(phantom.image(phantom.bias), tmp_path / "bias.nii.gz")
    nifti.save(phantom.image(phantom.acquired, np.complex64), tmp_path / "complex.nii.gz")
    with pytest.raises(InvalidImageError, match=r"complex.nii.gz: real numbers are needed"):
        apply_file(tmp_path / "bias.nii.gz", tmp_path / "complex.nii.gz", tmp_path / "out.nii.gz")


def test_all_outputs_or_none(tmp_path, phantom_file, monkeypatch):
    written, fsync = [], os.fsync

    def full(descriptor):
        if written:
            raise OSError(28, "No space left on device")
        written.append(fsync(descriptor))

    monkeypatch.setattr(os, "fsync", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"bias.nii.gz: cannot be written.*No space left"):
        correct_file(phantom_file, tmp_path / "out.nii.gz", bias_file=tmp_path / "bias.nii.gz", method="n4")
    assert written and sorted(tmp_path.iterdir()) == before


def test_a_folder_in_the_place_of_the_field_is_named_and_the_old_image_stays(tmp_path, phantom_file):
    (tmp_path / "out.nii.gz").write_bytes(b"old")
    (tmp_path / "bias.nii.gz").mkdir()
    with pytest.raises(OutputError, match=r"bias.nii.gz: the output is a folder"):
        correct_file(phantom_file, tmp_path / "out.nii.gz", bias_file=tmp_path / "bias.nii.gz", overwrite=True)
    assert (tmp_path / "out.nii.gz").read_bytes() == b"old"


def test_outputs_have_the_suffix_of_their_kind(tmp_path, phantom_file):
    with pytest.raises(OutputError, match=r"must end in \.nii\.gz or \.nii"):
        correct_file(phantom_file, tmp_path / "out.json")
    with pytest.raises(OutputError, match=r"must end in \.json"):
        correct_file(phantom_file, tmp_path / "out.nii.gz", record_file=tmp_path / "record.nii.gz")


def test_an_affine_that_is_singular_is_refused(tmp_path, phantom):
    flat = nib.Nifti1Image(phantom.acquired, np.diag([1.0, 1, 1, 1]))
    flat.header["sform_code"], flat.header["qform_code"] = 1, 0
    flat.header["srow_z"] = 0
    path = tmp_path / "flat.nii.gz"
    nifti.save(type(flat)(phantom.acquired, None, flat.header), path)
    with pytest.raises(UnreadableImageError, match=r"flat.nii.gz: the header gives no usable position"):
        correct_file(path, tmp_path / "out.nii.gz")


def test_options_of_the_wrong_type(phantom):
    with pytest.raises(InvalidParameterError, match="cannot use a value"):
        correct_image(phantom.image(), method="n4", options={"bins": "abc"})
