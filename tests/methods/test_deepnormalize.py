"""DeepNormalize: patches and their average, the way to the networks' grid and back, networks, faces."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_phantom, reorient

from biascorr_pydra import weights
from biascorr_pydra.anatomy.tissue import reason_against, segment_tissue
from biascorr_pydra.errors import InvalidMaskError, InvalidParameterError, SegmentationError
from biascorr_pydra.images import files, nifti
from biascorr_pydra.images.canonical import from_canonical, to_canonical
from biascorr_pydra.interfaces.cli.main import cli
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.methods.deepnormalize import model
from biascorr_pydra.methods.deepnormalize.networks import DeepNormalize, Discriminator, UNet3d
from biascorr_pydra.methods.deepnormalize.patches import average_over_patches, starts
from biascorr_pydra.normalize import normalize_file

# --- patches


def test_patches_reach_both_ends():
    assert starts(8, 4, 3) == [0, 3, 4]
    assert starts(10, 4, 3) == [0, 3, 6]
    assert starts(4, 4, 4) == [0]
    for wrong in ((3, 4, 1), (8, 4, 5), (8, 4, 0)):
        with pytest.raises(ValueError, match="patches of 4"):
            starts(*wrong)


def test_the_average_counts_each_patch_once_by_hand():
    # Along the first axis patches begin at 0, 1 and 2; each gives its own first value everywhere in it.
    image = np.zeros((1, 4, 2, 2), np.float32)
    image[0] = np.array([1, 2, 3, 4])[:, None, None]
    average = average_over_patches(image, lambda p: np.broadcast_to(p[:, :, :1, :1, :1], p.shape), 1, size=2, stride=1)
    assert average[0, :, 0, 0].tolist() == [1, 1.5, 2.5, 3]


def test_a_function_that_returns_its_patch_gives_the_image_whatever_stride_and_batch():
    image = np.random.default_rng(0).normal(size=(2, 11, 9, 10)).astype(np.float32)
    for stride, batch in ((1, 7), (3, 1), (4, 100)):
        average = average_over_patches(image, lambda p: p, 2, size=4, stride=stride, batch=batch)
        np.testing.assert_allclose(average, image, rtol=1e-5)


def test_patches_without_brain_are_not_run_and_batches_are_bounded():
    image = np.zeros((1, 12, 12, 12), np.float32)
    image[0, 0, 0, 0] = 1
    seen = []

    def function(patches):
        seen.append(len(patches))
        return np.ones_like(patches)

    average = average_over_patches(image, function, 1, size=4, stride=4, batch=5)
    assert seen == [1] and average.sum() == 4**3
    average_over_patches(np.ones_like(image), function, 1, size=4, stride=4, batch=5)
    assert sum(seen[1:]) == 27 and max(seen[1:]) == 5


def test_the_average_equals_the_sum_over_all_patches_divided_by_their_number():
    rng = np.random.default_rng(1)
    image, size, stride = rng.normal(size=(1, 7, 6, 8)).astype(np.float32), 3, 2
    sums, counts = np.zeros(image.shape), np.zeros(image.shape)
    for i in starts(7, size, stride):
        for j in starts(6, size, stride):
            for k in starts(8, size, stride):
                where = np.s_[:, i : i + size, j : j + size, k : k + size]
                sums[where] += np.sin(image[where] * image[where].mean())
                counts[where] += 1
    average = average_over_patches(
        image, lambda p: np.sin(p * p.mean(axis=(1, 2, 3, 4), keepdims=True)), 1, size=size, stride=stride
    )
    np.testing.assert_allclose(average, sums / counts, atol=1e-6)


# --- the grid


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR"])
def test_back_from_the_canonical_grid(codes):
    phantom = make_phantom((20, 24, 22))
    img = reorient(phantom.image(), codes)
    planes = np.add.outer(np.add.outer(1.0 * np.arange(20), 2.0 * np.arange(24)), 3.0 * np.arange(22))
    plane = reorient(phantom.image(planes), codes)
    canonical = to_canonical(np.asarray(plane.dataobj), img.affine, (77, 93, 85))  # four samples for each voxel
    back = from_canonical(canonical, img.affine, img.shape)
    inner = (slice(1, -1),) * 3  # at the ends the average has neighbours on one side only
    np.testing.assert_allclose(back[inner], plane.get_fdata()[inner], rtol=1e-5)
    same = to_canonical(np.asarray(img.dataobj), img.affine, (20, 24, 22))
    np.testing.assert_array_equal(from_canonical(same, img.affine, img.shape), np.asarray(img.dataobj))


def test_preparing_scales_crops_and_restores():
    data = np.zeros((40, 50, 60), np.float32)
    data[5:39, 8:20, 10:50] = 200
    data[6, 9, 11] = 20000  # one bright voxel is not the scale
    mask = data > 0
    prepared = model.prepare([data, 3 * data], np.diag([-1.0, 1, 1, 1]), mask)
    assert prepared.image.shape == (2, 34, 32, 40)  # the brain is 34 x 12 x 40: padded to one patch
    assert prepared.scales == pytest.approx([250, 750])
    assert np.median(prepared.image[0][prepared.image[0] > 0]) == pytest.approx(0.8)
    np.testing.assert_allclose(prepared.restore(prepared.image[0]) * prepared.scales[0], data, rtol=1e-6)
    with pytest.raises(InvalidMaskError):
        model.prepare([data], np.eye(4), np.zeros_like(mask))


def test_preparing_thick_slices_gives_cubes_of_a_millimetre():
    mask = np.zeros((40, 40, 12), bool)
    mask[5:35, 5:35, 2:10] = True
    prepared = model.prepare([mask * 100.0], np.diag([1.0, 1, 4, 1]), mask, margin=3)
    assert prepared.grid == (40, 40, 45)
    assert prepared.image.shape[1:3] == (36, 36) and prepared.image.shape[3] >= 32


def test_standardizing_by_hand():
    values = np.array([0, 1, 3, 0, 5, 7], np.float32).reshape(1, 6, 1, 1)
    standardized = model.standardize(values).ravel()
    expected = (np.array([1, 3, 5, 7]) - 4) / np.sqrt(5)
    np.testing.assert_allclose(standardized, [0, *expected[:2], 0, *expected[2:]], rtol=1e-6)


# --- networks


def test_the_papers_width_has_the_3d_unets_filters():
    network = UNet3d(1, 4, 32)
    filters = [c.out_channels for c in network.modules() if isinstance(c, torch.nn.Conv3d)]
    assert filters == [32, 64, 64, 128, 128, 256, 256, 512, 256, 256, 128, 128, 64, 64, 4]
    assert Discriminator(1, 4).last.in_features == 8 * 16 * 8


def test_the_generator_is_zero_outside_the_brain_and_within_0_to_1():
    torch.manual_seed(0)
    network = DeepNormalize(width=2, domains=2).eval()
    x = torch.rand(2, 1, 32, 32, 32)
    x[:, :, :10] = 0
    with torch.inference_mode():
        normalized, logits = network(x)
    assert (normalized[:, :, :10] == 0).all() and 0 < normalized[:, :, 10:].min() < normalized.max() < 1
    assert logits.shape == (2, 4, 32, 32, 32)
    assert network.discriminator(x).shape == (2, 3)
    assert torch.equal(DeepNormalize(width=2, generates=False).normalize(x), x)


def test_folding_batch_normalization_changes_nothing():
    torch.manual_seed(0)
    network = DeepNormalize(width=2, domains=2)
    network(torch.rand(2, 1, 32, 32, 32))  # statistics other than 0 and 1
    network.eval()
    x = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        for a, b in zip(network(x), model.fused(network, "cpu")(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


# --- faces


@pytest.fixture(scope="module")
def small():
    """A stripped phantom of 32 x 36 x 30 voxels of 3 mm, which takes a handful of patches."""
    phantom = make_phantom((32, 36, 30), voxel_mm=2.0)
    return phantom, phantom.image(phantom.acquired * phantom.brain)


def test_both_outputs_each_under_its_own_name(tmp_path, small):
    phantom, img = small
    nifti.save(img, tmp_path / "in.nii.gz")
    nifti.save(phantom.image(phantom.brain, np.uint8), tmp_path / "mask.nii.gz")
    outputs = ("--dseg-file", tmp_path / "dseg.nii.gz", "--record-file", tmp_path / "r.json")
    arguments = ["normalize", tmp_path / "in.nii.gz", tmp_path / "n.nii.gz", "--mask-file", tmp_path / "mask.nii.gz"]
    done = CliRunner().invoke(cli, [str(a) for a in (*arguments, *outputs, "--speed", "fast")])
    assert done.exit_code == 0, done.output
    normalized, dseg = nifti.load(tmp_path / "n.nii.gz"), nifti.load(tmp_path / "dseg.nii.gz")
    values = normalized.get_fdata()
    assert values.min() >= 0 and values.max() <= 1 and (values[~phantom.brain] == 0).all()
    np.testing.assert_array_equal(normalized.affine, img.affine)
    assert set(np.unique(dseg.get_fdata())) <= {0, 1, 2, 3}
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["method"]["weights_sha256"] == weights.sha256_of("deepnormalize")
    assert record["method"]["stride"] == 16 and record["in_sha256"] == [files.sha256(tmp_path / "in.nii.gz")]
    assert sum(record["histogram"]["after"]) == record["n_mask_voxels"] == phantom.brain.sum()
    again = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert again.exit_code == 1 and "exists" in str(again.exception)


def test_the_field_is_the_smooth_part_of_the_change(small, monkeypatch):
    phantom, img = small
    mask = phantom.brain
    planes = np.linspace(-0.2, 0.2, 36)[None, :, None]

    def run(images, affine, given, **how):
        prepared = model.prepare(images, affine, given)
        # A generator that divides by exp of a linear field, and by 2: the factor is no field.
        grid = to_canonical(np.broadcast_to(np.exp(-planes) / 2, mask.shape), affine, prepared.grid)
        cut = model.cropped(
            grid, prepared.first, [f + n for f, n in zip(prepared.first, prepared.image.shape[1:], strict=True)]
        )
        return model.Ran(prepared, prepared.image * cut, None, given, {})

    monkeypatch.setattr(model, "run", run)
    scan = Scan(np.asarray(img.dataobj), np.ones(mask.shape, bool), mask, (2.0, 2.0, 2.0))
    log_bias = get_corrector("deepnormalize")().estimate(scan).log_bias.on_grid(mask.shape)
    wanted = np.broadcast_to(planes, mask.shape)
    np.testing.assert_allclose(log_bias[mask] - log_bias[mask].mean(), wanted[mask] - wanted[mask].mean(), atol=5e-3)


def test_the_segmenter_serves_as_a_method_and_knows_what_it_learnt(small):
    phantom, img = small
    segmentation = segment_tissue(img, phantom.brain, method="deepnormalize", suffix="T1w")
    assert segmentation.method == "deepnormalize" and segmentation.record["weights_sha256"] == weights.sha256_of(
        "deepnormalize"
    )
    assert (segmentation.dseg[~phantom.brain] == 0).all()
    for tissue in ("CSF", "GM", "WM"):
        assert segmentation.probseg[tissue].min() >= 0 and segmentation.probseg[tissue].max() <= 1 + 1e-6
    assert "T2w" in reason_against("T2w", "deepnormalize")
    with pytest.raises(SegmentationError, match="learnt"):
        segment_tissue(img, phantom.brain, method="deepnormalize", suffix="FLAIR")


def test_wrong_parameters_are_refused(tmp_path, small):
    phantom, img = small
    nifti.save(img, tmp_path / "in.nii.gz")
    for options in ({"stride": 0}, {"stride": 33}, {"spline_distance_mm": 5}):
        with pytest.raises(InvalidParameterError):
            get_corrector("deepnormalize").from_options(**options)
    with pytest.raises(InvalidParameterError, match="1 modalities"):
        model.normalize_array([phantom.acquired] * 2, phantom.affine, phantom.brain)
    with pytest.raises(InvalidParameterError, match="paper, fast"):
        normalize_file(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz", speed="slow")
    assert not (tmp_path / "out.nii.gz").exists()


def test_orientation_hardly_matters(small):
    phantom, img = small
    one = model.normalize_array([img.get_fdata()], img.affine, phantom.brain, speed="fast")
    turned, mask = reorient(img, "LPS"), reorient(phantom.image(phantom.brain, np.uint8), "LPS")
    other = model.normalize_array([turned.get_fdata()], turned.affine, mask.get_fdata() > 0, speed="fast")
    back = reorient(nib.Nifti1Image(other.images[0], turned.affine), "RAS").get_fdata()
    np.testing.assert_allclose(back, one.images[0], atol=2e-3)  # RAS+ order: the same numbers go in


def test_the_pydra_task_gives_the_functions_bytes(tmp_path, small):
    from biascorr_pydra.interfaces.pydra.normalize import NormalizeImage

    phantom, img = small
    nifti.save(img, tmp_path / "in.nii.gz")
    nifti.save(phantom.image(phantom.brain, np.uint8), tmp_path / "mask.nii.gz")
    normalize_file(tmp_path / "in.nii.gz", tmp_path / "n.nii.gz", mask_file=tmp_path / "mask.nii.gz", speed="fast")
    task = NormalizeImage(in_file=tmp_path / "in.nii.gz", mask_file=tmp_path / "mask.nii.gz", speed="fast")
    outputs = task(worker="debug", cache_root=tmp_path / "cache")
    assert Path(str(outputs.normalized_file)).read_bytes() == (tmp_path / "n.nii.gz").read_bytes()
    assert json.loads(Path(str(outputs.record_file)).read_text())["method"]["stride"] == 16
