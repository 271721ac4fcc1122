"""n4 gives the answer of the programs that its presets name."""

import itertools

import ants
import numpy as np
import pytest
import torch
from n4_scans import (
    N4,
    QUICK,
    AntsN4,
    acquisition,
    as_ants,
    assert_agree,
    differences,
    log_bias,
    log_bias_sitk,
    scan_of,
)
from scipy.spatial.transform import Rotation

from biascorr_pydra.methods.n4 import iterate as core
from biascorr_pydra.methods.n4.corrector import rescale_intensities
from biascorr_pydra.methods.n4.prepare import prepare
from biascorr_pydra.methods.n4.voxels import BatchVoxels


@pytest.mark.parametrize(
    "options",
    [
        {"shrink_factor": 1},
        {"shrink_factor": 2},
        {"shrink_factor": 3},
        {"shrink_factor": 4},
        {"mesh": (4, 3, 2)},
        {"mesh": (1, 2, 5), "iterations": (6,)},
        {"iterations": (4, 3, 2, 2)},
        {"spline_distance_mm": 200.0},
        {"spline_distance_mm": 90.0},
        {"spline_distance_mm": 47.3},
        {"tolerance": 0.003, "iterations": (6, 3)},
        {"bins": 64},
        {"bins": 256},
        {"bins": 300},
        {"fwhm": 0.05},
        {"fwhm": 0.3},
        {"wiener_noise": 0.1},
    ],
    ids=lambda options: ",".join(f"{k}={v}" for k, v in options.items()),
)
def test_options_agree_with_antspyx(options, brain_scan):
    options = QUICK | options
    scan = brain_scan
    if options["shrink_factor"] == 1:
        data, brain, _, spacing = acquisition((46, 55, 41), 4)
        scan = scan_of(data, brain, spacing)
    estimate = N4.from_options("antspy", **options).estimate(scan)
    expected = AntsN4.from_options("antspy", **options).estimate(scan)
    assert_agree(log_bias(estimate, scan), expected.log_bias, scan.mask)


@pytest.mark.parametrize("contrast", ["T1w", "T2w", "FLAIR"])
@pytest.mark.parametrize("where", ["brain", "head", "ones", "ones where stripped"])
def test_masks_and_contrasts_agree_with_antspyx(contrast, where):
    data, brain, _, spacing = acquisition((60, 71, 55), 3, contrast)
    if where == "ones where stripped":
        data = np.where(brain, data, 0)
    mask = {"brain": brain, "head": data > 40}.get(where)
    scan = scan_of(data, mask, spacing)
    estimate = N4.from_options("antspy", **QUICK).estimate(scan)
    expected = AntsN4(**QUICK).estimate(scan)
    assert estimate.record["mask"] == ("all voxels" if mask is None else "given")
    assert_agree(log_bias(estimate, scan), expected.log_bias, np.ones(data.shape, bool) if mask is None else mask)


@pytest.mark.parametrize("shape", [(60, 71, 55), (57, 66, 50), (61, 70, 20)])
@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (0.573, 0.573, 3.3), (2.1, 4.1, 5.2)])
@pytest.mark.parametrize("distance", [None, 70.0])
def test_sizes_and_spacings_agree_with_antspyx(shape, spacing, distance):
    data, brain, *_ = acquisition(shape, 3)
    scan = scan_of(data, brain, spacing)
    options = QUICK | {"spline_distance_mm": distance}
    estimate = N4.from_options("antspy", **options).estimate(scan)
    assert_agree(log_bias(estimate, scan), AntsN4(**options).estimate(scan).log_bias, brain)


def test_weight_image_agrees_with_antspyx(brain_scan):
    weight = np.random.default_rng(1).uniform(0, 1, brain_scan.data.shape).astype(np.float32)
    weight[weight < 0.1] = 0
    scan = scan_of(brain_scan.data, brain_scan.mask, weight=weight)
    estimate = N4.from_options("antspy", **QUICK).estimate(scan)
    assert_agree(log_bias(estimate, scan), AntsN4(**QUICK).estimate(scan).log_bias, scan.mask)
    assert (
        estimate.record["n_voxels_used"]
        < N4.from_options("antspy", **QUICK).estimate(brain_scan).record["n_voxels_used"]
    )


@pytest.mark.parametrize("value", [0.0, -0.5, -5.0])
def test_nonpositive_voxels_are_kept_as_itk_keeps_them(value, brain_scan):
    data = brain_scan.data.copy()
    data[brain_scan.mask & (np.random.default_rng(2).random(data.shape) < 0.02)] = value
    scan = scan_of(data, brain_scan.mask)
    estimate = N4.from_options("antspy", **QUICK).estimate(scan)
    assert estimate.record["n_nonpositive_kept"] > 100
    assert_agree(log_bias(estimate, scan), AntsN4(**QUICK).estimate(scan).log_bias, scan.mask)
    without = N4.from_options("antspy", nonpositive="exclude", **QUICK).estimate(scan)
    assert differences(log_bias(without, scan), log_bias(estimate, scan), scan.mask)[1] > 1e-3


def test_a_first_voxel_that_is_the_lowest_is_treated_as_itk_treats_it(brain_scan):
    """ITK then begins its histogram above that voxel; our own preset does not."""
    data = brain_scan.data.copy()
    first = tuple(np.argwhere(brain_scan.mask.T)[0][::-1])
    mask = brain_scan.mask.copy()
    # Make the voxel that ITK meets first one of those that are used.
    first = tuple(int(i) - 1 + int(i) % 2 if int(i) > 1 else 1 for i in first)
    mask[:, :, : first[2] + 1] = False
    mask[first] = True
    data[first] = data[mask].min() / 3
    scan = scan_of(data, mask)
    expected = AntsN4(**QUICK).estimate(scan).log_bias
    as_itk, full = (N4.from_options("antspy", histogram_range=r, **QUICK).estimate(scan) for r in ("itk", "full"))
    assert_agree(log_bias(as_itk, scan), expected, mask)
    assert differences(log_bias(full, scan), expected, mask)[1] > 1e-3
    problem = prepare(scan, N4.from_options("antspy", **QUICK)).problem
    settings = core.Settings((4,), 0.0, 0.15, 0.01, 200, itk_range=True)
    with torch.inference_mode():
        voxels = BatchVoxels([problem], 200, torch.float32, "cpu", itk_range=True)
        batch = core.run_levels(voxels, settings, np.inf, None)
    np.testing.assert_allclose(batch[0].control_points, core.solve([problem], settings)[0].control_points, atol=1e-5)


@pytest.mark.parametrize("preset", ["antspy", "ants", "niworkflows", "niworkflows-final", "clinica"])
def test_presets_agree_with_ants(preset, brain_scan):
    # 600 mm of padding are left out of most passes here, and of none in ANTs.
    few = {
        "shrink_factor": 3 if preset == "clinica" else 2,
        "iterations": (2,) * len(N4.from_options(preset).iterations),
    }
    estimate = N4.from_options(preset, **few).estimate(brain_scan)
    expected = AntsN4.from_options(preset, **few).estimate(brain_scan)
    assert_agree(log_bias(estimate, brain_scan), expected.log_bias, brain_scan.mask)


@pytest.mark.parametrize("iterations", [(15,) * 4, pytest.param((50,) * 4, marks=pytest.mark.slow)])
def test_many_iterations_agree_with_antspyx(iterations):
    data, brain, *_ = acquisition((60, 71, 55), 3)
    scan = scan_of(data, brain, (3.0,) * 3)
    options = {"shrink_factor": 2, "iterations": iterations}
    estimate = N4.from_options("antspy", **options).estimate(scan)
    assert estimate.record["iterations"] == sum(iterations)
    expected = AntsN4.from_options("antspy", **options).estimate(scan)
    assert_agree(log_bias(estimate, scan), expected.log_bias, brain)


@pytest.mark.parametrize("weighted", [False, True])
def test_levels_end_where_those_of_antspyx_end(weighted):
    """ITK measures convergence in single precision; without that rounding this level ends an iteration later."""
    data, brain, _, spacing = acquisition((84, 97, 75))
    weight = np.random.default_rng(1).uniform(0, 1, data.shape).astype(np.float32) if weighted else None
    scan = scan_of(data, brain, spacing, weight)
    options = {"shrink_factor": 2, "iterations": (20,), "tolerance": 0.00157 if weighted else 0.00155}
    expected = AntsN4(**options).estimate(scan).log_bias
    as_itk, exact = (
        N4.from_options("antspy", convergence_measure=c, **options).estimate(scan) for c in ("itk", "exact")
    )
    assert as_itk.record["converged"]
    assert as_itk.record["iterations"] == exact.record["iterations"] - 1
    assert_agree(log_bias(as_itk, scan), expected, brain)
    assert differences(log_bias(exact, scan), expected, brain)[1] > 1e-3


def test_preset_mriqc_is_ants_on_the_clipped_image(brain_scan):
    clipped = np.clip(brain_scan.data, *np.percentile(brain_scan.data, (10, 99.9)).astype(np.float32))
    estimate = N4.from_options("mriqc", **QUICK).estimate(scan_of(brain_scan.data))
    expected = AntsN4.from_options("ants", **QUICK).estimate(scan_of(clipped))
    assert_agree(log_bias(estimate, brain_scan), expected.log_bias, np.ones(clipped.shape, bool))


@pytest.mark.parametrize("turn", [1, 2])
def test_oblique_headers_agree_with_antspyx(turn):
    """On odd sizes ITK has no choice of voxels to make, and header and origin play no part."""
    data, brain, *_ = acquisition((61, 71, 55), 3)
    scan = scan_of(data, brain, (3.0, 3.1, 2.9))
    image, mask = as_ants(data, scan.voxel_size_mm), as_ants(brain, scan.voxel_size_mm)
    for each in (image, mask):
        each.set_direction(Rotation.random(random_state=turn).as_matrix())
        each.set_origin((-70.3 * turn, 101.7, 55.1))
    expected = ants.n4_bias_field_correction(
        image, mask, shrink_factor=2, convergence={"iters": [4, 2], "tol": 1e-7}, return_bias_field=True
    )
    estimate = N4.from_options("antspy", **QUICK).estimate(scan)
    assert_agree(log_bias(estimate, scan), np.log(expected.numpy()), brain)


def test_one_choice_of_first_voxels_agrees_where_itk_rounds_the_other_way():
    data, brain, *_ = acquisition((60, 70, 54), 3)
    scan = scan_of(data, brain, (3.0, 3.1, 2.9))
    image, mask = as_ants(data, scan.voxel_size_mm), as_ants(brain, scan.voxel_size_mm)
    for each in (image, mask):
        each.set_direction(Rotation.random(random_state=3).as_matrix())
        each.set_origin((-70.3, 101.7, 55.1))
    expected = ants.n4_bias_field_correction(
        image, mask, shrink_factor=2, convergence={"iters": [4, 2], "tol": 1e-7}, return_bias_field=True
    )
    fields = [
        log_bias(N4.from_options("antspy", shrink_start=start, **QUICK).estimate(scan), scan)
        for start in itertools.product((0, 1), repeat=3)
    ]
    best = min(fields, key=lambda field: differences(field, np.log(expected.numpy()), brain)[1])
    assert_agree(best, np.log(expected.numpy()), brain)


def test_rescaled_intensities_agree_with_antspyx(brain_scan):
    image, mask = as_ants(brain_scan.data, (2.0,) * 3), as_ants(brain_scan.mask, (2.0,) * 3)
    expected = ants.n4_bias_field_correction(
        image, mask, rescale_intensities=True, shrink_factor=2, convergence={"iters": [4, 2], "tol": 1e-7}
    ).numpy()
    estimate = N4.from_options("antspy", rescale=True, **QUICK).estimate(brain_scan)
    corrected = brain_scan.data / np.exp(log_bias(estimate, brain_scan) - 1.7)  # any scale of the field will do
    rescaled = rescale_intensities(corrected, brain_scan.mask, estimate.record["rescale_to"])
    np.testing.assert_allclose(rescaled[brain_scan.mask], expected[brain_scan.mask], rtol=1e-3)
    assert (rescaled[~brain_scan.mask] == corrected[~brain_scan.mask]).all()


def test_rescaling_without_a_mask_is_said_to_be_impossible(brain_scan):
    record = N4.from_options("ants", **QUICK).estimate(scan_of(brain_scan.data)).record
    assert record["rescale_to"] is None
    assert "needs a mask" in record["notes"][0]


@pytest.mark.parametrize("masked", [True, False])
def test_preset_sitk_agrees_with_simpleitk(masked):
    data, brain, *_ = acquisition((46, 55, 41), 4)
    data[brain & (np.random.default_rng(5).random(data.shape) < 0.01)] = -2  # kept, as ANTs keeps them
    scan = scan_of(data, brain if masked else None, (4.0, 4.1, 3.7))
    estimate = N4.from_options("sitk", tolerance=0.0, iterations=(4, 2)).estimate(scan)
    expected = log_bias_sitk(
        scan, scan.mask, MaximumNumberOfIterations=[4, 2], ConvergenceThreshold=0.0
    )  # everything else is SimpleITK's default
    assert_agree(log_bias(estimate, scan), expected, brain if masked else np.ones(data.shape, bool))


def test_preset_sitk_stops_with_simpleitk():
    data, brain, *_ = acquisition((46, 55, 41), 4)
    scan = scan_of(data, brain, (4.0, 4.1, 3.7))
    estimate = N4.from_options("sitk", tolerance=0.00135, iterations=(20,)).estimate(scan)
    exact = N4.from_options("sitk", tolerance=0.00135, iterations=(20,), convergence_measure="exact").estimate(scan)
    assert estimate.record["converged"]
    assert 1 < estimate.record["iterations"] == exact.record["iterations"] - 1
    expected = log_bias_sitk(scan, brain, MaximumNumberOfIterations=[20], ConvergenceThreshold=0.00135)
    assert differences(log_bias(estimate, scan), expected, brain)[1] < 1e-4
    assert differences(log_bias(exact, scan), expected, brain)[1] > 1e-3


def test_preset_fastsurfer_agrees_with_simpleitk_on_a_shrunk_image(brain_scan):
    data = np.where(brain_scan.mask, brain_scan.data, 0)
    scan = scan_of(data)
    estimate = N4.from_options("fastsurfer", iterations=(6, 3)).estimate(scan)
    expected = log_bias_sitk(scan, data > 0, shrink=4, MaximumNumberOfIterations=[6, 3], ConvergenceThreshold=0.0)
    assert estimate.record["mask"] == "positive voxels"
    assert_agree(log_bias(estimate, scan), expected, data > 0)
