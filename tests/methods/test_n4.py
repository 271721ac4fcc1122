"""n4 recovers known fields, gives the same anywhere, stops where it is asked to, and refuses impossible values."""

import json
import time

import numpy as np
import pytest
import torch
from conftest import make_phantom
from n4_scans import N4, QUICK, AntsN4, acquisition, assert_agree, log_bias, scan_of
from scipy.ndimage import zoom

from biascorr_pydra.errors import InvalidMaskError, InvalidParameterError
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.methods.n4 import iterate as core
from biascorr_pydra.methods.n4.itk_convergence import itk_reach, itk_variation
from biascorr_pydra.methods.n4.prepare import prepare
from biascorr_pydra.methods.n4.voxels import BatchVoxels, SlabVoxels


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
        turned_log_bias = log_bias(N4(**options, shrink_factor=4).estimate(turned), turned)
        straight = log_bias(N4(**options, shrink_factor=4).estimate(scan), scan)
        np.testing.assert_allclose(turned_log_bias[turned.mask], turn(straight)[turned.mask], atol=1e-5)
    assert np.isfinite(expected).all()


def test_bytes_do_not_depend_on_the_number_of_threads(brain_scan):
    before, estimates = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            estimates.append(N4(shrink_factor=1, iterations=(4, 3)).estimate(brain_scan))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len({e.log_bias.control_points.tobytes() for e in estimates}) == 1
    assert len({json.dumps(e.record) for e in estimates}) == 1


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
        together = core.run_levels(voxels, settings, float("inf"), None)
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
    for scan, together in zip(scans, both, strict=True):
        alone = corrector.estimate(scan)
        assert (together.log_bias.control_points == alone.log_bias.control_points).all()
        assert together.record == alone.record


def test_slabs_give_the_sums_of_the_whole(brain_scan, monkeypatch):
    whole = N4(tolerance=0.0).estimate(brain_scan)
    monkeypatch.setattr("biascorr_pydra.methods.n4.voxels.SLAB_VOXELS", 5000)
    slabs = N4(tolerance=0.0).estimate(brain_scan)
    assert_agree(log_bias(slabs, brain_scan), log_bias(whole, brain_scan), brain_scan.mask)


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
    variation = itk_variation(pixels)
    assert variation == pytest.approx(welford_in_single_precision(pixels), rel=1e-6)
    exact = pixels.astype(float).std(ddof=1) / pixels.astype(float).mean()
    assert exact < variation * itk_reach(n)


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
    with torch.inference_mode(), core.one_thread():
        voxels = BatchVoxels([problem], 200, torch.float32, "cpu", itk_convergence=True)
        together = core.run_levels(voxels, settings, np.inf, None)[0].levels[0]
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
    level = N4(**options, iterations=(4,)).estimate(small).record["levels"][0]
    assert level["convergence"] == pytest.approx(expected, rel=1e-6)
    assert not level["converged"]


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
