"""The judge on a head of known truth: verdicts follow the fields, and nothing else moves them."""

import nibabel as nib
import numpy as np
import pytest

from biascorr_pydra.images.nifti import voxel_size_mm
from biascorr_pydra.judge import ACQUIRED, CANNOT_TELL, LEAST_VOXELS, SAME, judge_images
from biascorr_pydra.judge.classes import neighbours, three_tissues
from biascorr_pydra.judge.noise import Blocks, interval
from biascorr_pydra.judge.tissue import Grid, consensus
from biascorr_pydra.metrics import UndefinedMetricError, smoothed_log, tissue_unevenness

ORDER = ("CSF", "GM", "WM")
SIZE = (4.0, 4.0, 4.0)


def resampled(data, tissue):
    logs = {name: smoothed_log(data, tissue == label, SIZE, name) for name, label in (("GM", 1), ("WM", 2))}
    return Blocks.of(tissue, SIZE, seed=0).resampled(logs)


def judged(phantom, images, suffix="T1w", mask=None):
    return judge_images(images, phantom.brain if mask is None else mask, SIZE, suffix=suffix)


def verdicts(judgement):
    return {(pair.first, pair.second): pair.verdict for pair in judgement.pairs}


@pytest.fixture(scope="module")
def images(phantom):
    """The phantom with all, half, and none of its field left, and with twice the field."""
    return {
        ACQUIRED: phantom.acquired,
        "right": phantom.acquired / phantom.bias,
        "half": phantom.acquired / phantom.bias**0.5,
        "wrong": phantom.acquired * phantom.bias,
    }


def test_less_field_is_better_in_every_pair(phantom, images):
    assert verdicts(judged(phantom, images)) == {
        (ACQUIRED, "right"): "right",
        (ACQUIRED, "half"): "half",
        (ACQUIRED, "wrong"): ACQUIRED,
        ("right", "half"): "right",
        ("right", "wrong"): "right",
        ("half", "wrong"): "half",
    }


def test_a_verdict_depends_on_its_two_images_alone(phantom, images):
    """Neither a third image nor the order of the two changes a pair."""
    alone = judged(phantom, {name: images[name] for name in ("half", ACQUIRED)}).pairs[0]
    among = next(p for p in judged(phantom, images).pairs if {p.first, p.second} == {"half", ACQUIRED})
    assert alone.verdict == among.verdict == "half" and alone.voxels == among.voxels
    product = (1 + alone.changes["tissue_unevenness"][0] / 100) * (1 + among.changes["tissue_unevenness"][0] / 100)
    assert product == pytest.approx(1)


def test_a_scale_is_no_change(phantom, images):
    scaled = judged(phantom, {ACQUIRED: images[ACQUIRED], "scaled": 3.7 * images[ACQUIRED]})
    assert verdicts(scaled) == {(ACQUIRED, "scaled"): SAME}


def test_noise_decides_nothing(phantom, images):
    """Another field of the same strength is no better, whatever the numbers say."""
    rng = np.random.default_rng(3)
    noisy = images["right"] * np.exp(rng.normal(0, 1e-3, phantom.acquired.shape))
    assert verdicts(judged(phantom, {"a": images["right"], "b": noisy}))["a", "b"] in (CANNOT_TELL, SAME)


def test_flattened_contrast_does_not_win(phantom, images):
    """Gray matter drawn to white matter has less spread about the mean of both, and is no better."""
    log = np.log(np.maximum(images["right"], 1))
    middle = np.log(775.0)
    flattened = np.where(phantom.brain, np.exp(middle + 0.9 * (log - middle)), images["right"])
    pair = judged(phantom, {"right": images["right"], "flat": flattened}).pairs[0]
    # spread and contrast fall alike: the number falls by the root only
    assert pair.changes["tissue_unevenness"][0] == pytest.approx(100 * (0.9**0.5 - 1), abs=1.5)


@pytest.mark.parametrize("axes", ["LAS", "PIR", "RSA"])
def test_the_orientation_plays_no_part(phantom, images, axes):
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes))
    turned = {name: nib.orientations.apply_orientation(images[name], turn) for name in (ACQUIRED, "half")}
    mask = nib.orientations.apply_orientation(phantom.brain, turn)
    pair = judge_images(turned, mask, SIZE, suffix="T1w").pairs[0]
    plain = judged(phantom, {name: images[name] for name in (ACQUIRED, "half")}).pairs[0]
    assert pair.verdict == "half" and pair.voxels == plain.voxels
    assert pair.changes["tissue_unevenness"][0] == pytest.approx(plain.changes["tissue_unevenness"][0], rel=1e-4)


@pytest.mark.parametrize(
    ("suffix", "mask", "reason"),
    [("PDw", None, "not known for suffix 'PDw'"), (None, None, "not known"), ("T1w", "none", "mask is empty")],
)
def test_what_cannot_be_judged_is_said(phantom, images, suffix, mask, reason):
    judgement = judged(phantom, images, suffix, np.zeros_like(phantom.brain) if mask else None)
    assert reason in judgement.reason and not judgement.pairs and not judgement.metrics


def test_too_little_tissue_is_no_verdict(phantom, images):
    few = np.zeros_like(phantom.brain)
    few[20:25, 25:31, 20:25] = True
    judgement = judged(phantom, images, mask=few & phantom.brain)
    assert judgement.reason is not None and not any(pair.changes for pair in judgement.pairs)


@pytest.mark.parametrize("odd", ["negative", "one voxel", "air"])
def test_odd_masks_and_images_are_reasons(phantom, images, odd):
    """Nothing here is an error: one odd scan must not stop the report of a cohort."""
    mask = phantom.brain
    if odd == "one voxel":
        mask = np.zeros_like(mask)
        mask[24, 28, 22] = True
    elif odd == "air":
        mask = np.zeros_like(mask)
        mask[:3, :3, :3] = True
    chosen = {name: images[name] * (-1 if odd == "negative" else 1) for name in (ACQUIRED, "half")}
    judgement = judged(phantom, chosen, mask=mask)
    assert judgement.reason and not any(pair.changes for pair in judgement.pairs)


def test_flat_tissue_is_no_verdict(phantom, images):
    flat = np.choose(phantom.dseg, [1.0, 60, 100, 25]).astype(np.float32)
    pair = judged(phantom, {ACQUIRED: flat, "half": images["half"]}).pairs[0]
    assert (pair.verdict, pair.changes) == (CANNOT_TELL, {})


def test_an_image_without_tissues_vetoes_only_its_own_pairs(phantom, images):
    one_value = np.ones(phantom.acquired.shape, np.float32)
    judgement = judged(phantom, {ACQUIRED: images[ACQUIRED], "ubc": one_value, "half": images["half"]})
    assert judgement.reason is None
    assert verdicts(judgement) == {
        (ACQUIRED, "ubc"): CANNOT_TELL,
        (ACQUIRED, "half"): "half",
        ("ubc", "half"): CANNOT_TELL,
    }
    assert judgement.metrics["ubc"]["cjv"] is None and judgement.metrics["half"]["cjv"] > 0
    assert "one intensity" in judgement.metrics["ubc"]["undefined"]["cjv"]


def test_one_intensity_has_no_tissues(phantom):
    judgement = judged(phantom, {ACQUIRED: np.ones(phantom.acquired.shape, np.float32)})
    assert "one intensity" in judgement.reason


def test_tissues_are_the_phantoms(phantom):
    """Of the true image, nearly every voxel that is called a tissue is that tissue; and so in T2w's order."""
    classes = three_tissues(phantom.acquired / phantom.bias, phantom.brain, ORDER)
    named = np.choose(classes, [0, 3, 1, 2])
    assert (named == phantom.dseg)[classes > 0].mean() > 0.97 and (classes > 0)[phantom.brain].mean() > 0.95
    inverted = np.choose(phantom.dseg, [0, 1.1, 0.6, 1.7]).astype(np.float32)
    inverted += np.random.default_rng(0).normal(0, 0.02, inverted.shape).astype(np.float32)
    classes = three_tissues(np.maximum(inverted, 0.01), phantom.brain, ("WM", "GM", "CSF"))
    assert (np.choose(classes, [0, 2, 1, 3]) == phantom.dseg)[classes > 0].mean() > 0.97


def test_consensus_keeps_the_inside_of_what_all_agree_on():
    """A cube of white matter of 5 voxels keeps the 3 within it; what one segmentation calls otherwise is gone."""
    classes = np.zeros((9, 9, 9), np.int8)
    classes[2:7, 2:7, 2:7] = 3
    kept = consensus([classes, classes], ORDER)
    assert (kept == 2).sum() == 27 and kept[4, 4, 4] == 2
    other = classes.copy()
    other[4, 4, 4] = 2
    assert (consensus([classes, other], ORDER) == 2).sum() == 27 - 7  # that voxel and its six neighbours


def test_neighbours_are_the_six():
    point = np.zeros((3, 3, 3))
    point[1, 1, 1] = 1
    summed = neighbours(point)
    assert summed.sum() == 6 and summed[0, 1, 1] == 1 and summed[1, 1, 1] == 0
    assert neighbours(np.ones((2, 2, 2)))[0, 0, 0] == 3  # nothing beyond the border


def test_the_grid_averages_within_the_mask():
    mask = np.zeros((8, 8, 8), bool)
    mask[1:6, 0:4, 0:4] = True
    data = np.arange(512, dtype=np.float32).reshape(8, 8, 8)
    grid = Grid.over(mask, (1, 1, 1))
    assert grid.factors == (2, 2, 2) and grid.voxel_size_mm == (2, 2, 2) and grid.shape == (3, 2, 2)
    assert grid.mean(data)[0, 0, 0] == pytest.approx(data[1:3, :2, :2].mean())
    assert grid.mean(data)[2, 0, 0] == pytest.approx(data[5, :2, :2].mean())  # the half block that is in the mask
    affine = grid.affine(np.eye(4))
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [1.5, 0.5, 0.5, 1])  # the middle of the first block
    np.testing.assert_allclose(voxel_size_mm(nib.Nifti1Image(np.zeros((3, 2, 2)), affine)), (2, 2, 2))
    assert Grid.over(mask, (4, 0.7, 2)).factors == (1, 3, 1)


def test_unevenness_is_that_of_the_equation():
    """Two tissues, each of two halves far apart: no smoothing reaches over, and the number is known."""
    data = np.zeros((40, 4, 4))
    mask = {"gm": np.zeros(data.shape, bool), "wm": np.zeros(data.shape, bool)}
    for name, start, center in (("gm", 0, 1.0), ("wm", 20, 2.0)):
        for first, shift in ((0, -0.1), (12, 0.1)):
            block = np.s_[start + first : start + first + 6]
            data[block], mask[name][block] = np.exp(center + shift), True
    number = tissue_unevenness(data, **mask, voxel_size_mm=(4, 4, 4))
    assert number == pytest.approx(2 * 1.4826 * 0.1 / np.sqrt(1.0), rel=1e-3)
    with pytest.raises(UndefinedMetricError, match="same intensity"):
        tissue_unevenness(np.ones_like(data), **mask, voxel_size_mm=(4, 4, 4))
    with pytest.raises(UndefinedMetricError, match="fewer than"):
        smoothed_log(-data, mask["gm"], (4, 4, 4), "gray matter")


def test_the_interval_is_about_the_number_and_narrows_with_tissue(phantom, images):
    tissue = np.choose(phantom.dseg, [0, 1, 2, 0])
    masks = {"gm": tissue == 1, "wm": tissue == 2}
    number = tissue_unevenness(images["half"], **masks, voxel_size_mm=SIZE)
    draws = resampled(images["half"], tissue)
    assert np.median(draws) == pytest.approx(number, rel=0.1) and np.percentile(draws, 2.5) < number
    np.testing.assert_array_equal(draws, resampled(images["half"], tissue))
    half = tissue.copy()
    half[:24] = 0
    widths = [np.diff(np.percentile(resampled(images["half"], part), (2.5, 97.5))) for part in (tissue, half)]
    assert widths[0] < widths[1]
    low, high = interval(np.array([1.0, 2.0]), np.array([0.5, 1.0]))
    assert low == high == pytest.approx(-50)


def test_the_least_tissue_is_of_both(phantom, images):
    pair = judged(phantom, {name: images[name] for name in (ACQUIRED, "half")}).pairs[0]
    assert min(pair.voxels.values()) >= LEAST_VOXELS and set(pair.voxels) == {"WM", "GM"}
