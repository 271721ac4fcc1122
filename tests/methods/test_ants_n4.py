"""ants-n4 is ANTs' own N4: the same field as calling antspyx, and nothing changed around it."""

import ants
import numpy as np
import pytest
from conftest import make_phantom

from biascorr_pydra.errors import InvalidMaskError, InvalidParameterError
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan

AntsN4 = get_corrector("ants-n4")
SPACING = (3.5, 3.0, 4.5)
QUICK = {"shrink_factor": 2, "iterations": (6, 4)}


@pytest.fixture(scope="module")
def head():
    return make_phantom((40, 46, 38), seed=3)


def scan_of(data, mask=None, *, weight=None, valid=None, spacing=SPACING):
    valid = np.ones(data.shape, bool) if valid is None else valid
    return Scan(data, valid, mask, spacing, weight)


def ants_image(array):
    return ants.from_numpy(np.asarray(array, np.float32), spacing=SPACING)


def reference(data, mask, **options):
    """The log bias of antspyx's own function."""
    options = {"shrink_factor": 2, "convergence": {"iters": [6, 4], "tol": 1e-7}} | options
    mask = None if mask is None else ants_image(mask)
    bias = ants.n4_bias_field_correction(ants_image(data), mask=mask, return_bias_field=True, **options)
    return np.log(bias.numpy())


def test_same_field_as_antspyx(head):
    estimate = AntsN4(**QUICK).estimate(scan_of(head.acquired, head.brain))
    np.testing.assert_allclose(estimate.log_bias, reference(head.acquired, head.brain), atol=1e-6)
    assert estimate.record["n_voxels_in_mask"] == head.brain.sum()


def test_without_a_mask_every_voxel_counts(head):
    data = head.acquired + 1
    estimate = AntsN4(**QUICK).estimate(scan_of(data))
    np.testing.assert_allclose(estimate.log_bias, reference(data, None), atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"mesh": (3, 2, 1)}, {"spline_param": [3, 2, 1]}),
        ({"spline_distance_mm": 60.0}, {"spline_param": 60}),
        ({"tolerance": 0.01}, {"convergence": {"iters": [6, 4], "tol": 0.01}}),
        ({"shrink_factor": 3}, {"shrink_factor": 3}),
    ],
)
def test_options_reach_ants(head, ours, theirs):
    log_bias = AntsN4(**QUICK | ours).estimate(scan_of(head.acquired, head.brain)).log_bias
    np.testing.assert_allclose(log_bias, reference(head.acquired, head.brain, **theirs), atol=1e-6)
    assert np.abs(log_bias - reference(head.acquired, head.brain))[head.brain].max() > 1e-4


def test_weight_image_reaches_ants(head):
    weight = np.where(head.dseg == 2, 1.0, 0.3).astype(np.float32)
    log_bias = AntsN4(**QUICK).estimate(scan_of(head.acquired, head.brain, weight=weight)).log_bias
    expected = reference(head.acquired, head.brain, weight_mask=ants_image(weight))
    np.testing.assert_allclose(log_bias, expected, atol=1e-6)
    assert np.abs(log_bias - reference(head.acquired, head.brain))[head.brain].max() > 1e-4


@pytest.mark.parametrize("option", [{"fwhm": 0.3}, {"wiener_noise": 0.1}, {"bins": 60}])
def test_sharpening_options_that_antspyx_does_not_offer_change_the_field(head, option):
    scan = scan_of(head.acquired, head.brain)
    difference = AntsN4(**QUICK | option).estimate(scan).log_bias - AntsN4(**QUICK).estimate(scan).log_bias
    assert np.abs(difference[head.brain]).max() > 1e-4


def test_voxels_that_were_not_finite_are_left_out(head):
    data, valid = head.acquired.copy(), np.ones(head.acquired.shape, bool)
    valid[head.brain & (np.arange(data.shape[2]) % 5 == 0)] = False
    data[~valid] = 0
    estimate = AntsN4(**QUICK).estimate(scan_of(data, head.brain, valid=valid))
    np.testing.assert_allclose(estimate.log_bias, reference(data, head.brain & valid), atol=1e-6)


def test_nonpositive_voxels_are_counted(head):
    data = head.acquired.copy()
    data[head.dseg == 3] = -1
    record = AntsN4(**QUICK).estimate(scan_of(data, head.brain)).record
    assert record["n_nonpositive_in_mask"] == (head.dseg == 3).sum()


def test_quiet_and_repeatable(head, capfd):
    scan = scan_of(head.acquired, head.brain)
    first, second = (AntsN4(**QUICK).estimate(scan).log_bias for _ in range(2))
    assert (first == second).all()
    assert capfd.readouterr() == ("", "")


def test_injected_field_is_recovered(head):
    ratio = np.exp(AntsN4(shrink_factor=2).estimate(scan_of(head.acquired, head.brain)).log_bias) / head.bias
    before, after = (x[head.brain].std() / x[head.brain].mean() for x in (head.bias, ratio))
    assert before > 0.14
    assert after < before / 3


def test_presets_differ_as_documented():
    presets = {name: AntsN4.from_options(name).parameters() for name in AntsN4.presets}
    assert next(iter(presets)) == "antspy"
    assert presets["antspy"]["tolerance"] == 1e-7
    assert presets["ants"]["tolerance"] == 0
    assert presets["niworkflows"]["spline_distance_mm"] == 200
    assert presets["niworkflows-final"]["iterations"] == (50,) * 5
    assert presets["clinica"]["spline_distance_mm"] == 600
    assert {p["shrink_factor"] for p in presets.values()} == {4}


@pytest.mark.parametrize(
    "option",
    [
        {"shrink_factor": 0},
        {"iterations": ()},
        {"iterations": (50, 0)},
        {"tolerance": -1.0},
        {"mesh": (1, 1)},
        {"spline_distance_mm": 0.0},
        {"fwhm": 0.0},
        {"wiener_noise": -0.1},
        {"bins": 1},
    ],
)
def test_impossible_values_are_refused(option):
    with pytest.raises(InvalidParameterError, match=next(iter(option))):
        AntsN4.from_options(**option)


def test_empty_mask_is_refused(head):
    with pytest.raises(InvalidMaskError, match="no finite voxel"):
        AntsN4().estimate(scan_of(head.acquired, np.zeros(head.brain.shape, bool)))
