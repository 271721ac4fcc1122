"""n4 gives the answer of the programs its presets name, recovers known fields, and gives it anywhere alike."""

import itertools
import json
import time

import ants
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from conftest import make_phantom
from nilearn.datasets import load_mni152_template
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation

from biascorr_pydra.errors import InvalidMaskError, InvalidParameterError
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.methods.n4 import iterate as core
from biascorr_pydra.methods.n4.corrector import rescale_intensities
from biascorr_pydra.methods.n4.itk_convergence import itk_reach, itk_variation
from biascorr_pydra.methods.n4.prepare import prepare
from biascorr_pydra.methods.n4.voxels import BatchVoxels, SlabVoxels

N4, AntsN4 = get_corrector("n4"), get_corrector("ants-n4")
QUICK = {"shrink_factor": 2, "iterations": (4, 2)}


def acquisition(shape, step=2, contrast="T1w", seed=0, spacing=None):
    """A part of the MNI152 T1w with an injected field and noise: data, brain, field, spacing."""
    template = load_mni152_template(resolution=1).get_fdata(dtype=np.float32)[::step, ::step, ::step]
    data = template[tuple(slice((a - n) // 2, (a - n) // 2 + n) for a, n in zip(template.shape, shape, strict=True))]
    brain = data > 0
    data = data / data.max() * 900
    if contrast != "T1w":
        data = np.where(brain, 1000 - 0.8 * data, 0) if contrast == "T2w" else np.where(brain, 300 + 0.3 * data, 0)
    x, y, z = (
        np.linspace(-1, 1, n).reshape(s) for n, s in zip(shape, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
    )
    field = np.exp(0.25 * x + 0.2 * y**2 - 0.15 * y * z + 0.1 * z).astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, 8, shape)
    return np.abs(data * field + noise).astype(np.float32) + 1, brain, field, spacing or (float(step),) * 3


def scan_of(data, mask=None, spacing=(2.0, 2.0, 2.0), weight=None):
    return Scan(data, np.ones(data.shape, bool), mask, spacing, weight)


@pytest.fixture(scope="module")
def brain_scan():
    data, brain, _, spacing = acquisition((84, 97, 75))
    return scan_of(data, brain, spacing)


def log_bias(estimate, scan):
    return estimate.log_bias.on_grid(scan.data.shape)


def differences(found, expected, mask):
    """Relative differences of two bias fields in the mask: 99.9th percentile and maximum."""
    relative = np.abs(np.expm1(np.asarray(found, float)[mask] - np.asarray(expected, float)[mask]))
    return np.quantile(relative, 0.999), relative.max()


def assert_agree(found, expected, mask):
    typical, largest = differences(found, expected, mask)
    assert typical < 1e-4
    assert largest < 1e-3


def as_ants(array, spacing):
    return ants.from_numpy(np.asarray(array, np.float32), spacing=spacing)


def log_bias_sitk(scan, mask, *, shrink=1, **settings):
    """SimpleITK's log bias: estimated on the shrunk image, evaluated on the whole."""
    image, mask_image = (
        None if a is None else sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(a, t).T))
        for a, t in ((scan.data, np.float32), (mask, np.uint8))
    )
    for each in filter(None, (image, mask_image)):
        each.SetSpacing(scan.voxel_size_mm)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    for name, value in settings.items():
        getattr(corrector, f"Set{name}")(value)
    small = [each if shrink == 1 else sitk.Shrink(each, [shrink] * 3) for each in (image, mask_image) if each]
    corrector.Execute(*small)
    return sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image)).T


# --- the same answer as ANTs


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
    found = N4.from_options("antspy", **options).estimate(scan)
    expected = AntsN4.from_options("antspy", **options).estimate(scan)
    assert_agree(log_bias(found, scan), expected.log_bias, scan.mask)


@pytest.mark.parametrize("contrast", ["T1w", "T2w", "FLAIR"])
@pytest.mark.parametrize("where", ["brain", "head", "ones", "ones where stripped"])
def test_masks_and_contrasts_agree_with_antspyx(contrast, where):
    data, brain, _, spacing = acquisition((60, 71, 55), 3, contrast)
    if where == "ones where stripped":
        data = np.where(brain, data, 0)
    mask = {"brain": brain, "head": data > 40}.get(where)
    scan = scan_of(data, mask, spacing)
    found = N4.from_options("antspy", **QUICK).estimate(scan)
    expected = AntsN4(**QUICK).estimate(scan)
    assert found.record["mask"] == ("all voxels" if mask is None else "given")
    assert_agree(log_bias(found, scan), expected.log_bias, np.ones(data.shape, bool) if mask is None else mask)


@pytest.mark.parametrize("shape", [(60, 71, 55), (57, 66, 50), (61, 70, 20)])
@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (0.573, 0.573, 3.3), (2.1, 4.1, 5.2)])
@pytest.mark.parametrize("distance", [None, 70.0])
def test_sizes_and_spacings_agree_with_antspyx(shape, spacing, distance):
    data, brain, *_ = acquisition(shape, 3)
    scan = scan_of(data, brain, spacing)
    options = QUICK | {"spline_distance_mm": distance}
    found = N4.from_options("antspy", **options).estimate(scan)
    assert_agree(log_bias(found, scan), AntsN4(**options).estimate(scan).log_bias, brain)


def test_weight_image_agrees_with_antspyx(brain_scan):
    weight = np.random.default_rng(1).uniform(0, 1, brain_scan.data.shape).astype(np.float32)
    weight[weight < 0.1] = 0
    scan = scan_of(brain_scan.data, brain_scan.mask, weight=weight)
    found = N4.from_options("antspy", **QUICK).estimate(scan)
    assert_agree(log_bias(found, scan), AntsN4(**QUICK).estimate(scan).log_bias, scan.mask)
    assert (
        found.record["n_voxels_used"] < N4.from_options("antspy", **QUICK).estimate(brain_scan).record["n_voxels_used"]
    )


@pytest.mark.parametrize("value", [0.0, -0.5, -5.0])
def test_nonpositive_voxels_are_kept_as_itk_keeps_them(value, brain_scan):
    data = brain_scan.data.copy()
    data[brain_scan.mask & (np.random.default_rng(2).random(data.shape) < 0.02)] = value
    scan = scan_of(data, brain_scan.mask)
    found = N4.from_options("antspy", **QUICK).estimate(scan)
    assert found.record["n_nonpositive_kept"] > 100
    assert_agree(log_bias(found, scan), AntsN4(**QUICK).estimate(scan).log_bias, scan.mask)
    without = N4.from_options("antspy", nonpositive="exclude", **QUICK).estimate(scan)
    assert differences(log_bias(without, scan), log_bias(found, scan), scan.mask)[1] > 1e-3


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
        batch = core._run(BatchVoxels([problem], 200, torch.float32, "cpu", itk_range=True), settings, np.inf, None)
    np.testing.assert_allclose(batch[0].control_points, core.solve([problem], settings)[0].control_points, atol=1e-5)


@pytest.mark.parametrize("preset", ["antspy", "ants", "niworkflows", "niworkflows-final", "clinica"])
def test_presets_agree_with_ants(preset, brain_scan):
    # 600 mm of padding are left out of most passes here, and of none in ANTs.
    few = {
        "shrink_factor": 3 if preset == "clinica" else 2,
        "iterations": (2,) * len(N4.from_options(preset).iterations),
    }
    found = N4.from_options(preset, **few).estimate(brain_scan)
    expected = AntsN4.from_options(preset, **few).estimate(brain_scan)
    assert_agree(log_bias(found, brain_scan), expected.log_bias, brain_scan.mask)


@pytest.mark.parametrize("iterations", [(15,) * 4, pytest.param((50,) * 4, marks=pytest.mark.slow)])
def test_many_iterations_agree_with_antspyx(iterations):
    data, brain, *_ = acquisition((60, 71, 55), 3)
    scan = scan_of(data, brain, (3.0,) * 3)
    options = {"shrink_factor": 2, "iterations": iterations}
    found = N4.from_options("antspy", **options).estimate(scan)
    assert found.record["iterations"] == sum(iterations)
    expected = AntsN4.from_options("antspy", **options).estimate(scan)
    assert_agree(log_bias(found, scan), expected.log_bias, brain)


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
    found = N4.from_options("mriqc", **QUICK).estimate(scan_of(brain_scan.data))
    expected = AntsN4.from_options("ants", **QUICK).estimate(scan_of(clipped))
    assert_agree(log_bias(found, brain_scan), expected.log_bias, np.ones(clipped.shape, bool))


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
    found = N4.from_options("antspy", **QUICK).estimate(scan)
    assert_agree(log_bias(found, scan), np.log(expected.numpy()), brain)


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
    found = rescale_intensities(corrected, brain_scan.mask, estimate.record["rescale_to"])
    np.testing.assert_allclose(found[brain_scan.mask], expected[brain_scan.mask], rtol=1e-3)
    assert (found[~brain_scan.mask] == corrected[~brain_scan.mask]).all()


def test_rescaling_without_a_mask_is_said_to_be_impossible(brain_scan):
    record = N4.from_options("ants", **QUICK).estimate(scan_of(brain_scan.data)).record
    assert record["rescale_to"] is None
    assert "needs a mask" in record["notes"][0]


# --- the same answer as SimpleITK


@pytest.mark.parametrize("masked", [True, False])
def test_preset_sitk_agrees_with_simpleitk(masked):
    data, brain, *_ = acquisition((46, 55, 41), 4)
    data[brain & (np.random.default_rng(5).random(data.shape) < 0.01)] = -2  # kept, as ANTs keeps them
    scan = scan_of(data, brain if masked else None, (4.0, 4.1, 3.7))
    found = N4.from_options("sitk", tolerance=0.0, iterations=(4, 2)).estimate(scan)
    expected = log_bias_sitk(
        scan, scan.mask, MaximumNumberOfIterations=[4, 2], ConvergenceThreshold=0.0
    )  # everything else is SimpleITK's default
    assert_agree(log_bias(found, scan), expected, brain if masked else np.ones(data.shape, bool))


def test_preset_sitk_stops_with_simpleitk():
    data, brain, *_ = acquisition((46, 55, 41), 4)
    scan = scan_of(data, brain, (4.0, 4.1, 3.7))
    found = N4.from_options("sitk", tolerance=0.00135, iterations=(20,)).estimate(scan)
    exact = N4.from_options("sitk", tolerance=0.00135, iterations=(20,), convergence_measure="exact").estimate(scan)
    assert found.record["converged"]
    assert 1 < found.record["iterations"] == exact.record["iterations"] - 1
    expected = log_bias_sitk(scan, brain, MaximumNumberOfIterations=[20], ConvergenceThreshold=0.00135)
    assert differences(log_bias(found, scan), expected, brain)[1] < 1e-4
    assert differences(log_bias(exact, scan), expected, brain)[1] > 1e-3


def test_preset_fastsurfer_agrees_with_simpleitk_on_a_shrunk_image(brain_scan):
    data = np.where(brain_scan.mask, brain_scan.data, 0)
    scan = scan_of(data)
    found = N4.from_options("fastsurfer", iterations=(6, 3)).estimate(scan)
    expected = log_bias_sitk(scan, data > 0, shrink=4, MaximumNumberOfIterations=[6, 3], ConvergenceThreshold=0.0)
    assert found.record["mask"] == "positive voxels"
    assert_agree(log_bias(found, scan), expected, data > 0)


# --- known truth


def residual(estimate, field, mask):
    """Coefficient of variation of the estimated over the true field: 0 is perfect, the field's own is no correction."""
    ratio = np.exp(log_bias(estimate, scan_of(field))) / field
    return ratio[mask].std() / ratio[mask].mean()


@pytest.mark.parametrize("contrast", ["T1w", "T2w", "FLAIR"])
def test_injected_field_is_recovered(contrast):
    data, brain, field, spacing = acquisition((84, 97, 75), 2, contrast)
    estimate = N4().estimate(scan_of(data, brain, spacing))
    before = field[brain].std() / field[brain].mean()
    assert before > 0.11
    assert residual(estimate, field, brain) < before * {"T1w": 0.5, "T2w": 0.65, "FLAIR": 0.4}[contrast]
    json.dumps(estimate.record)


@pytest.mark.parametrize("given", [True, False])
def test_field_of_a_head_is_recovered_with_and_without_a_mask(given):
    head = make_phantom((60, 70, 55), 3.5)
    scan = scan_of(head.acquired, head.brain if given else None, (3.5,) * 3)
    estimate = N4().estimate(scan)
    assert estimate.record["mask"] == ("given" if given else "detected head")
    before = head.bias[head.brain].std() / head.bias[head.brain].mean()
    assert residual(estimate, head.bias, head.brain) < before * (0.4 if given else 0.5)


def test_the_default_does_not_depend_on_resolution():
    """Work is in millimetres: twice the voxels give nearly the same field."""
    data, brain, *_ = acquisition((92, 110, 82), 2)
    fine = zoom(data, 2, order=0, grid_mode=True, mode="nearest")
    fine_mask = np.repeat(np.repeat(np.repeat(brain, 2, 0), 2, 1), 2, 2)
    coarse = N4().estimate(scan_of(data, brain))
    finer = N4().estimate(scan_of(fine, fine_mask, (1.0,) * 3))
    assert coarse.record["shrink_factors"] == [2, 2, 2]
    assert finer.record["shrink_factors"] == [4, 4, 4]
    one = log_bias(coarse, scan_of(data))[brain]
    other = finer.log_bias.on_grid(fine.shape)[::2, ::2, ::2][brain]
    ratio = np.exp(one - other)
    assert ratio.std() / ratio.mean() < 0.02


def test_thick_slices_are_not_thinned(brain_scan):
    thick = scan_of(brain_scan.data[:, :, ::3], brain_scan.mask[:, :, ::3], (1.0, 1.0, 5.0))
    assert N4().estimate(thick).record["shrink_factors"] == [4, 4, 1]


def test_the_default_leaves_out_nonpositive_and_nonfinite_voxels(brain_scan):
    clean = N4().estimate(brain_scan)
    bad = brain_scan.mask & (np.random.default_rng(3).random(brain_scan.data.shape) < 0.05)
    valid = ~bad
    data = np.where(bad, 0, brain_scan.data)
    nonfinite = N4().estimate(Scan(data, valid, brain_scan.mask, (2.0,) * 3))
    nonpositive = N4().estimate(scan_of(np.where(bad, -50, brain_scan.data).astype(np.float32), brain_scan.mask))
    n = int(bad[1::2, 1::2, 1::2].sum())  # the voxels that are used
    assert nonfinite.record["n_nonfinite_left_out"] == n
    assert nonpositive.record["n_nonpositive_left_out"] == n
    assert clean.record["n_voxels_used"] == nonpositive.record["n_voxels_used"] + n
    fields = [log_bias(e, brain_scan) for e in (clean, nonfinite, nonpositive)]
    assert (fields[1] == fields[2]).all()
    ratio = np.exp(fields[1] - fields[0])[brain_scan.mask]
    assert ratio.std() / ratio.mean() < 0.02


def test_axes_are_treated_alike(brain_scan):
    """The field of a transposed image is the transposed field; of a flipped one, on symmetric samples, the flipped."""
    scan = scan_of(brain_scan.data[:81, :97, :73], brain_scan.mask[:81, :97, :73])
    options = {"tolerance": 0.0, "iterations": (10, 5), "precision": "float64"}
    expected = log_bias(N4(**options).estimate(scan), scan)
    for turn in (lambda a: a.transpose(2, 0, 1), lambda a: a[::-1, :, ::-1]):
        turned = scan_of(turn(scan.data), turn(scan.mask))
        found = log_bias(N4(**options, shrink_factor=4).estimate(turned), turned)
        straight = log_bias(N4(**options, shrink_factor=4).estimate(scan), scan)
        np.testing.assert_allclose(found[turned.mask], turn(straight)[turned.mask], atol=1e-5)
    assert np.isfinite(expected).all()


# --- anywhere alike


def test_bytes_do_not_depend_on_the_number_of_threads(brain_scan):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(N4(shrink_factor=1, iterations=(4, 3)).estimate(brain_scan))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len({e.log_bias.control_points.tobytes() for e in found}) == 1
    assert len({json.dumps(e.record) for e in found}) == 1


def test_single_precision_agrees_with_double(brain_scan):
    single, double = (N4(precision=p, tolerance=1e-7).estimate(brain_scan) for p in ("float32", "float64"))
    assert_agree(log_bias(single, brain_scan), log_bias(double, brain_scan), brain_scan.mask)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_batch_on_a_device_agrees_with_one_at_a_time(precision, brain_scan):
    """The passes meant for a GPU, run on the CPU, on scans of different sizes."""
    data, brain, *_ = acquisition((61, 70, 55), 3, "T2w")
    scans = [brain_scan, scan_of(data, brain, (3.0,) * 3)]
    options = N4(precision=precision, tolerance=0.003)
    problems = [prepare(scan, options).problem for scan in scans]
    settings = core.Settings((8, 5), 0.003, 0.15, 0.01, 200, precision=precision)
    alone = core.solve(problems, settings)
    voxels = BatchVoxels(problems, 200, getattr(torch, precision), "cpu")
    with torch.inference_mode():
        together = core._run(voxels, settings, float("inf"), None)
    limit = 1e-4 if precision == "float32" else 1e-9
    for one, other in zip(alone, together, strict=True):
        assert [x.iterations for x in one.levels] == [x.iterations for x in other.levels]
        assert [x.converged for x in one.levels] == [x.converged for x in other.levels]
        assert one.levels[0].convergence == pytest.approx(other.levels[0].convergence, rel=1e-3)
        np.testing.assert_allclose(one.control_points, other.control_points, atol=limit)
    assert any(x.converged for x in alone[0].levels)


def test_many_scans_at_once_are_the_same_as_each_alone(brain_scan):
    data, brain, *_ = acquisition((61, 70, 55), 3)
    scans = [brain_scan, scan_of(data, brain, (3.0,) * 3)]
    corrector = N4(spline_distance_mm=120.0, iterations=(5, 3))  # meshes differ, and so are solved apart
    both = corrector.estimate_batch(scans)
    for scan, found in zip(scans, both, strict=True):
        alone = corrector.estimate(scan)
        assert (found.log_bias.control_points == alone.log_bias.control_points).all()
        assert found.record == alone.record


def test_slabs_give_the_sums_of_the_whole(brain_scan, monkeypatch):
    whole = N4(tolerance=0.0).estimate(brain_scan)
    monkeypatch.setattr("biascorr_pydra.methods.n4.voxels.SLAB_VOXELS", 5000)
    slabs = N4(tolerance=0.0).estimate(brain_scan)
    assert_agree(log_bias(slabs, brain_scan), log_bias(whole, brain_scan), brain_scan.mask)


# --- stoppable and visible


def welford_in_single_precision(pixels):
    """ITK's expressions, each result stored in the type that C++ gives it, one voxel after the other."""
    mu = sigma = n = np.float32(0)
    for pixel in pixels:
        n += np.float32(1)
        if n > 1:
            difference = np.float32(pixel - mu)
            sigma = np.float32(float(sigma) + float(difference * difference) * (float(n) - 1.0) / float(n))
        mu = np.float32(float(mu) * (1.0 - 1.0 / float(n)) + float(pixel / n))
    return np.float32(np.sqrt(float(sigma) / (float(n) - 1.0))) / mu


@pytest.mark.parametrize("spread", [1e-3, 0.3])
@pytest.mark.parametrize("drift", [0.0, 3.0])
def test_itks_measure_is_that_of_its_recurrence(spread, drift):
    n = 60_000
    draws = np.random.default_rng(4).normal(0, 1, n) + np.linspace(-drift, drift, n)
    pixels = np.exp(spread * draws).astype(np.float32)
    found = itk_variation(pixels)
    assert found == pytest.approx(welford_in_single_precision(pixels), rel=1e-6)
    exact = pixels.astype(float).std(ddof=1) / pixels.astype(float).mean()
    assert exact < found * itk_reach(n)


def test_the_mean_of_itks_measure_gets_stuck():
    """With a field that only rises, the mean stays near its lowest values, and the spread comes out twice as large."""
    pixels = np.exp(np.linspace(-1e-3, 1e-3, 500_000)).astype(np.float32)
    exact = pixels.astype(float).std(ddof=1) / pixels.astype(float).mean()
    assert itk_variation(pixels) == pytest.approx(2 * exact, rel=0.01)


def test_itks_measure_of_nothing():
    assert itk_variation(np.ones(10_000, np.float32)) == 0
    assert np.isnan(itk_variation(np.ones(1, np.float32)))


def test_a_batch_measures_as_itk_does(brain_scan):
    problem = prepare(brain_scan, N4.from_options("antspy", **QUICK)).problem
    settings = core.Settings((10,), 0.0016, 0.15, 0.01, 200, itk_convergence=True)
    alone = core.solve([problem], settings)[0].levels[0]
    with torch.inference_mode(), core._one_thread():
        voxels = BatchVoxels([problem], 200, torch.float32, "cpu", itk_convergence=True)
        together = core._run(voxels, settings, np.inf, None)[0].levels[0]
    assert alone.converged
    assert together.iterations == alone.iterations
    assert together.convergence == pytest.approx(alone.convergence, rel=1e-4)


def test_convergence_is_recorded_and_ends_a_level(brain_scan):
    seen = []
    record = N4(tolerance=0.002).estimate(brain_scan, progress=lambda *facts: seen.append(facts)).record
    assert [(scan, level) for scan, level, _ in seen] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert [facts.iterations for *_, facts in seen] == [level["iterations"] for level in record["levels"]]
    for level in record["levels"]:
        assert level["converged"] == (level["convergence"] <= 0.002)
        assert level["converged"] or level["iterations"] == 50
    assert record["levels"][0]["converged"]
    assert record["iterations"] == sum(level["iterations"] for level in record["levels"])
    assert record["converged"] == all(level["converged"] for level in record["levels"])


def test_convergence_is_the_variation_of_the_ratio_of_the_last_two_fields(brain_scan):
    options = {"tolerance": 0.0, "precision": "float64", "shrink_factor": 1}
    small = scan_of(brain_scan.data[::3, ::3, ::3], brain_scan.mask[::3, ::3, ::3])
    fields = [
        np.exp(N4(**options, iterations=(n,)).estimate(small).log_bias.on_grid(small.data.shape, float))[small.mask]
        for n in (3, 4)
    ]
    ratio = fields[1] / fields[0]
    expected = ratio.std(ddof=1) / ratio.mean()
    found = N4(**options, iterations=(4,)).estimate(small).record["levels"][0]
    assert found["convergence"] == pytest.approx(expected, rel=1e-6)
    assert not found["converged"]


def test_time_is_bounded(brain_scan):
    started = time.monotonic()
    estimate = N4(max_seconds=1e-6, tolerance=0.0, iterations=(10**6, 10**6)).estimate(brain_scan)
    assert time.monotonic() - started < 20
    assert estimate.record["stopped_by_time"]
    assert not estimate.record["converged"]
    assert estimate.record["levels"][1] == {"iterations": 0, "convergence": None, "converged": False}
    once = N4(tolerance=0.0, iterations=(1,)).estimate(brain_scan)
    np.testing.assert_allclose(log_bias(estimate, brain_scan), log_bias(once, brain_scan), atol=1e-5)
    assert not once.record["stopped_by_time"]


def test_a_constant_image_has_no_field():
    scan = scan_of(np.full((20, 22, 24), 5, np.float32))
    estimate = N4(default_mask="all", shrink_mm=2.0).estimate(scan)
    assert np.ptp(log_bias(estimate, scan)) < 1e-6
    assert estimate.record["converged"]


# --- parameters


def test_our_own_preset_comes_first_and_each_program_has_one():
    assert list(N4.presets) == [
        *("biascorr", "antspy", "ants", "sitk", "niworkflows", "niworkflows-final", "fastsurfer", "mriqc", "clinica")
    ]
    assert N4.from_options() == N4()
    for preset in set(N4.presets) & set(AntsN4.presets):
        ours, theirs = (cls.from_options(preset).parameters() for cls in (N4, AntsN4))
        assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.parametrize(
    "option",
    [
        {"shrink_mm": 0.0, "shrink_factor": 2},
        {"shrink_factor": 0},
        {"shrink_factor": 1.5},
        {"shrink_start": (0, -1, 0)},
        {"iterations": ()},
        {"iterations": (50, 0)},
        {"tolerance": -1.0},
        {"mesh": (1, 0, 1)},
        {"mesh_over": "everything"},
        {"spline_distance_mm": -5.0},
        {"fwhm": 0.0},
        {"wiener_noise": 0.0},
        {"bins": 1},
        {"nonpositive": "ignore"},
        {"convergence_measure": "roughly"},
        {"default_mask": "brain"},
        {"clip_percentiles": (90.0, 10.0)},
        {"max_seconds": 0.0},
        {"precision": "float16"},
    ],
)
def test_impossible_values_are_refused(option):
    with pytest.raises(InvalidParameterError, match=next(iter(option))):
        N4.from_options(**option)


def test_a_mask_without_usable_voxels_is_refused(brain_scan):
    with pytest.raises(InvalidMaskError, match="no usable voxel"):
        N4().estimate(scan_of(-brain_scan.data, brain_scan.mask))


def test_the_voxels_of_a_slab_are_those_of_the_mask(brain_scan):
    problem = prepare(brain_scan, N4()).problem
    voxels = SlabVoxels(problem, 200, torch.float32)
    assert sum(slab.voxels.stop - slab.voxels.start for slab in voxels.slabs) == (problem.weight > 0).sum()
