"""Reading, checking, masks, canonical grid and writing: round trips and refusals."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from conftest import reorient
from scipy import ndimage

from biascorr_pydra.errors import (
    GridMismatchError,
    InvalidImageError,
    InvalidMaskError,
    UnreadableImageError,
)
from biascorr_pydra.images import nifti
from biascorr_pydra.images.canonical import crop, spline_from_canonical, to_canonical
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.images.head import closed, detect_head

ORIENTATIONS = ["RAS", "LAS", "LPS", "oblique"]


# --- reading


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_load_reads_what_nibabel_wrote(tmp_path, suffix, kind, dtype):
    values = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(dtype)
    path = tmp_path / f"a{suffix}"
    kind(values, np.diag([1, 2, 3, 1.0])).to_filename(path)
    img = nifti.load(path)
    np.testing.assert_array_equal(np.asarray(img.dataobj), values)
    assert type(img) is kind


def test_scaled_integers_are_read_with_slope_and_intercept(tmp_path):
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    img = nib.Nifti1Image(stored, np.eye(4))
    img.header.set_slope_inter(0.5, 10)
    path = tmp_path / "scaled.nii.gz"
    # to_filename would rescale; the bytes are written as they are
    with gzip.open(path, "wb") as stream:
        header = img.header.copy()
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        stream.write(header.binaryblock + b"\0" * 4 + stored.tobytes(order="F"))
    loaded = nifti.load(path)
    np.testing.assert_allclose(np.asarray(loaded.dataobj), stored * 0.5 + 10)
    again = nifti.save_like(np.asarray(loaded.dataobj), loaded)
    nifti.save(again, tmp_path / "again.nii.gz")
    np.testing.assert_allclose(nifti.load(tmp_path / "again.nii.gz").get_fdata(), stored * 0.5 + 10)


def test_missing_file():
    with pytest.raises(UnreadableImageError, match="no such file"):
        nifti.load("nowhere.nii.gz")


def test_truncated_gzip(phantom_file):
    phantom_file.write_bytes(phantom_file.read_bytes()[:-2000])
    with pytest.raises(UnreadableImageError, match=r"phantom.nii.gz: not a complete gzip file.*Copy or download"):
        nifti.load(phantom_file)


def test_truncated_before_compression(tmp_path, phantom):
    path = tmp_path / "short.nii"
    nifti.save(phantom.image(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableImageError, match="data end too early"):
        nifti.load(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 400])
def test_not_a_nifti(tmp_path, content):
    path = tmp_path / "text.nii"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"text.nii: "):
        nifti.load(path)
    (tmp_path / "text.nii.gz").write_bytes(b"not gzip at all")
    with pytest.raises(UnreadableImageError, match="gzip"):
        nifti.load(tmp_path / "text.nii.gz")


def test_other_formats_are_named(tmp_path):
    (tmp_path / "a.mgz").write_bytes(b"x")
    with pytest.raises(UnreadableImageError, match=r"\.nii or \.nii\.gz"):
        nifti.load(tmp_path / "a.mgz")


# --- checking


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((5, 5, 5)), "same value"),
        (np.full((5, 5, 5), 7.0), "same value"),
        (np.full((5, 5, 5), np.nan), "no voxel has a finite value"),
        (-np.arange(125.0).reshape(5, 5, 5), "no voxel is positive"),
        (np.ones((5, 5)), "3-D image"),
        (np.ones((5, 5, 5, 3)), r"3-D image.*\(5, 5, 5, 3\).*biascorr apply"),
        (np.ones((5, 5, 2)), "at least 4 voxels"),
        (np.zeros((0, 5, 5)), "at least 4 voxels"),
        (np.ones((5, 5, 5), np.complex64), "real numbers"),
    ],
)
def test_images_that_cannot_be_corrected(values, words):
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    with pytest.raises(InvalidImageError, match=words):
        nifti.inspect(nib.Nifti1Image(values, np.eye(4)), name="scan.nii.gz")


def test_odd_voxels_are_counted_and_non_finite_ones_left_out():
    values = np.full((5, 5, 5), 3.0, np.float32)
    values[0, 0] = [np.nan, np.inf, -np.inf, -2, 0]
    data, valid, counts = nifti.inspect(nib.Nifti1Image(values, np.eye(4)))
    assert (counts.n_nan, counts.n_infinite, counts.n_negative, counts.n_zero) == (1, 2, 1, 1)
    np.testing.assert_array_equal(valid[0, 0], [False, False, False, True, True])
    np.testing.assert_array_equal(data[0, 0], [0, 0, 0, -2, 0])
    assert len(counts.warnings()) == 2


def test_trailing_axis_of_length_one_is_dropped():
    data, _, _ = nifti.inspect(nib.Nifti1Image(np.arange(125.0, dtype=np.float32).reshape(5, 5, 5, 1), np.eye(4)))
    assert data.shape == (5, 5, 5)


# --- masks and grids


def test_mask_moved_by_rounding_is_taken_as_it_is(phantom):
    affine = phantom.affine + 1e-5
    affine[3] = [0, 0, 0, 1]
    mask, resampled = nifti.load_mask(nib.Nifti1Image(phantom.brain.astype(np.uint8), affine), phantom.image())
    assert not resampled
    np.testing.assert_array_equal(mask, phantom.brain)


@pytest.mark.parametrize("codes", ORIENTATIONS[:3])
def test_mask_in_another_orientation_comes_back_exactly(phantom, codes):
    mask_img = reorient(phantom.image(phantom.brain, np.uint8), codes)
    mask, resampled = nifti.load_mask(mask_img, phantom.image())
    assert resampled == (codes != "RAS")
    np.testing.assert_array_equal(mask, phantom.brain)


def test_mask_at_half_the_resolution_is_resampled(phantom):
    coarse = nib.Nifti1Image(phantom.brain[::2, ::2, ::2].astype(np.uint8), phantom.affine @ np.diag([2, 2, 2, 1]))
    mask, resampled = nifti.load_mask(coarse, phantom.image())
    assert resampled
    assert 2 * (mask & phantom.brain).sum() / (mask.sum() + phantom.brain.sum()) > 0.93


def test_mask_elsewhere_is_refused(phantom):
    affine = phantom.affine.copy()
    affine[0, 3] += 100
    with pytest.raises(GridMismatchError, match="does not lie inside the image"):
        nifti.load_mask(nib.Nifti1Image(phantom.brain.astype(np.uint8), affine), phantom.image())


@pytest.mark.parametrize(("outside", "fits"), [(0, True), (1, True), (3, False), (100, False)])
def test_a_mask_on_another_grid_must_lie_inside_the_image_but_for_a_hundredth(outside, fits):
    img = nib.Nifti1Image(np.ones((220, 12, 12), np.float32), np.eye(4))
    affine = np.eye(4)
    affine[0, 3] = -outside  # of the mask's 200 planes so many lie before the image's first
    mask = nib.Nifti1Image(np.ones((200, 12, 12), np.uint8), affine)
    if not fits:
        with pytest.raises(GridMismatchError):
            nifti.load_mask(mask, img)
        return
    moved, resampled = nifti.load_mask(mask, img)
    assert resampled and moved.sum() == (200 - outside) * 144 and moved[: 200 - outside].all()


@pytest.mark.parametrize(("voxels", "same"), [(0.0, True), (0.005, True), (0.02, False), (0.5, False), (0.9, False)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_grids_are_the_same_to_a_hundredth_of_a_voxel(voxels, same, axis):
    size_mm = 2.0
    img = nib.Nifti1Image(np.ones((9, 8, 7), np.float32), np.diag([size_mm] * 3 + [1]))
    affine = img.affine.copy()
    affine[axis, 3] += voxels * size_mm
    assert nifti.same_grid(nib.Nifti1Image(np.ones((9, 8, 7), np.float32), affine), img) is same
    turned = img.affine.copy()
    turned[axis, axis] *= 1 + voxels / (img.shape[axis] - 1)  # the last voxel is that far off, the first is not
    assert nifti.same_grid(nib.Nifti1Image(np.ones((9, 8, 7), np.float32), turned), img) is same


def test_empty_mask_is_refused(phantom):
    with pytest.raises(InvalidMaskError, match="empty"):
        nifti.load_mask(phantom.image(np.zeros_like(phantom.brain), np.uint8), phantom.image())


def test_detected_head_covers_the_brain_and_not_the_air(phantom):
    head = detect_head(phantom.acquired)
    assert head[phantom.brain].mean() > 0.99
    assert head[(phantom.true == 0)].mean() < 0.05


@pytest.mark.parametrize(
    ("data", "words"), [(np.zeros((9, 8, 7)), "from 0 to 0"), (np.full((9, 8, 300), -2.0), "from -2 to -2")]
)
def test_where_no_voxel_is_positive_there_is_no_head(data, words):
    with pytest.raises(InvalidImageError, match=f"no head to detect.*{words}"):
        detect_head(data)


# --- the canonical grid


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_spline_and_image_agree_on_both_grids(phantom, codes):
    points = np.random.default_rng(3).normal(size=(4, 5, 6))
    shape = (30, 31, 32)
    img = reorient(phantom.image(), codes)
    native = spline_from_canonical(LogBiasSpline.spanning(points, shape), img.affine, img.shape)
    back = to_canonical(native.on_grid(img.shape), img.affine, img_shape := (48, 56, 44))
    np.testing.assert_allclose(back, LogBiasSpline.spanning(points, img_shape).on_grid(img_shape), atol=1e-5)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_canonical_image_does_not_depend_on_the_orientation(phantom, codes):
    img = reorient(phantom.image(), codes)
    canonical = to_canonical(np.asarray(img.dataobj), img.affine, (20, 20, 20))
    expected = to_canonical(phantom.acquired, phantom.affine, (20, 20, 20))
    np.testing.assert_allclose(canonical, expected, rtol=1e-5)


# --- writing


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_header_survives(tmp_path, phantom, codes):
    img = reorient(phantom.image(dtype=np.int16), codes)
    img.set_qform(img.affine, 1)
    shifted = img.affine.copy()
    shifted[:3, 3] += 5  # sform and qform that differ
    img.set_sform(shifted, 3)
    img.header.set_xyzt_units("mm", "sec")
    img.header["descrip"] = b"by hand"
    nifti.save(img, tmp_path / "in.nii.gz")
    source = nifti.load(tmp_path / "in.nii.gz")
    nifti.save(nifti.save_like(source.get_fdata() * 0.5, source), tmp_path / "out.nii.gz")
    written = nib.load(tmp_path / "out.nii.gz")
    for name in (
        "qform_code",
        "sform_code",
        "descrip",
        "xyzt_units",
        "pixdim",
        "srow_x",
        "srow_y",
        "srow_z",
        "qoffset_x",
    ):
        np.testing.assert_array_equal(written.header[name], source.header[name], err_msg=name)
    assert written.get_data_dtype() == np.float32
    np.testing.assert_allclose(written.affine, shifted, atol=1e-4)


def test_equal_images_give_equal_bytes(tmp_path, phantom):
    nifti.save(phantom.image(), tmp_path / "a.nii.gz")
    nifti.save(phantom.image(), tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_spline_over_a_part_of_the_canonical_grid_is_the_same_on_the_native_one(phantom, codes):
    img, grid = reorient(phantom.image(), codes), (24, 28, 22)
    points = np.random.default_rng(0).normal(size=(5, 6, 4))
    part = LogBiasSpline(points, first=(2.0, 3.5, 0.0), last=(20.0, 25.0, 17.25))
    native = spline_from_canonical(part, img.affine, img.shape, grid).on_grid(img.shape, float)
    # At the canonical grid's own samples, which are few enough to interpolate the native field without much loss.
    fine = LogBiasSpline(points, *(tuple(np.array(end) * 8) for end in (part.first, part.last)))
    expected = fine.on_grid(tuple(8 * (n - 1) + 1 for n in grid), float)
    back = to_canonical(native, img.affine, expected.shape)
    np.testing.assert_allclose(back, expected, atol=0.03)
    assert np.abs(back[::-1] - expected).max() > 0.5  # the order matters


def test_a_crop_takes_the_samples_in_between():
    ramp = np.arange(10.0)[:, None, None] + 10 * np.arange(4.0)[:, None] + 100 * np.arange(3.0)
    cropped = crop(ramp, (2.0, 0.5, 0.0), (6.0, 2.5, 2.0), (9, 3, 3))
    expected = np.linspace(2, 6, 9)[:, None, None] + 10 * np.array([0.5, 1.5, 2.5])[:, None] + 100 * np.arange(3.0)
    np.testing.assert_allclose(cropped, expected, rtol=1e-6)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_closing_is_scipys(iterations):
    mask = np.random.default_rng(iterations).random((17, 20, 13)) < 0.06
    mask[:3, :2] = mask[-1, :, -2:] = True  # at the border too
    np.testing.assert_array_equal(closed(mask, iterations), ndimage.binary_closing(mask, iterations=iterations))
