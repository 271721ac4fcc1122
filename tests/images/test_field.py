"""The B-spline algebra against hand-computed values and inverse pairs."""

import numpy as np
import pytest

from biascorr_pydra.images.field import LogBiasSpline, bspline_basis, evaluate, fit, mean_one, refine


def bases(shape, points):
    return [bspline_basis(np.arange(n), k, first=0, last=n - 1) for n, k in zip(shape, points, strict=True)]


def test_basis_at_a_knot_is_1_4_1_over_6_and_sums_to_one():
    basis = bspline_basis(np.array([0.0, 1.0, 2.0, 0.5]), 5, first=0, last=2)
    np.testing.assert_allclose(basis[0], np.array([1, 4, 1, 0, 0]) / 6, atol=1e-15)
    np.testing.assert_allclose(basis[1], np.array([0, 1, 4, 1, 0]) / 6, atol=1e-15)
    np.testing.assert_allclose(basis[2], np.array([0, 0, 1, 4, 1]) / 6, atol=1e-15)
    np.testing.assert_allclose(basis[3], np.array([1, 23, 23, 1, 0]) / 48, atol=1e-15)


def test_positions_outside_are_held_at_the_ends():
    ends = bspline_basis(np.array([0.0, 9.0]), 6, first=0, last=9)
    outside = bspline_basis(np.array([-5.0, 99.0]), 6, first=0, last=9)
    np.testing.assert_array_equal(outside, ends)


def test_control_points_on_a_line_give_the_line():
    # A cubic B-spline reproduces linear functions: control point k of s spans lies at (k - 1) / s.
    line = (np.arange(7) - 1) / 4
    values = bspline_basis(np.linspace(0, 1, 23), 7, first=0, last=1) @ line
    np.testing.assert_allclose(values, np.linspace(0, 1, 23), atol=1e-14)


def test_too_few_control_points_are_refused():
    with pytest.raises(ValueError, match="at least 4"):
        bspline_basis(np.arange(5), 3, first=0, last=4)


def test_refining_does_not_change_the_field():
    coarse = np.random.default_rng(0).normal(size=(4, 5, 7))
    shape = (13, 17, 11)
    fine = refine(coarse)
    assert fine.shape == (5, 7, 11)
    np.testing.assert_allclose(evaluate(fine, bases(shape, fine.shape)), evaluate(coarse, bases(shape, coarse.shape)))


def test_fit_inverts_evaluate_and_ignores_voxels_without_weight():
    rng = np.random.default_rng(1)
    points, shape = rng.normal(size=(4, 5, 6)), (20, 21, 22)
    values, weights = evaluate(points, bases(shape, points.shape)), rng.uniform(0.5, 1, shape)
    values[rng.random(shape) < 0.1] = np.nan
    weights[np.isnan(values)] = 0
    fitted = fit(values, weights, bases(shape, points.shape), ridge=1e-13)
    np.testing.assert_allclose(fitted, points, atol=1e-4)  # corner control points are badly conditioned
    truth = evaluate(points, bases(shape, points.shape))
    np.testing.assert_allclose(evaluate(fitted, bases(shape, points.shape)), truth, atol=1e-7)


def test_fit_leaves_control_points_that_no_voxel_reaches_at_zero():
    shape = (20, 20, 20)
    weights = np.zeros(shape)
    weights[:5] = 1
    points = fit(np.ones(shape), weights, bases(shape, (9, 4, 4)))
    assert np.abs(points[6:]).max() < 1e-6


def test_spanning_spline_has_its_ends_at_the_first_and_last_voxel():
    points = np.random.default_rng(2).normal(size=(5, 5, 5))
    coarse = LogBiasSpline.spanning(points, (11, 11, 11)).on_grid((11, 11, 11), float)
    fine = LogBiasSpline.spanning(points, (21, 21, 21)).on_grid((21, 21, 21), float)
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-12)


def test_mean_one():
    log_bias = np.log(np.array([[[2.0, 6.0, 100.0]]]))
    bias, log_scale = mean_one(log_bias, np.array([[[True, True, False]]]))
    np.testing.assert_allclose(bias, [[[0.5, 1.5, 25.0]]], rtol=1e-6)
    assert log_scale == pytest.approx(np.log(4))
    assert bias.dtype == np.float32
