"""Metrics against hand-computed values, reference implementations and their invariances."""

import numpy as np
import pytest
from statsmodels.robust.scale import mad
from statsmodels.stats.weightstats import DescrStatsW

from biascorr_pydra import metrics
from biascorr_pydra.metrics import METRICS, UndefinedMetricError


@pytest.fixture
def tissues():
    """A 10 x 10 x 10 image: GM 90 or 110 (mean 100, sigma 10), WM 195 or 205 (mean 200, sigma 5), background 0."""
    data = np.zeros((10, 10, 10))
    gm, wm = np.zeros(data.shape, bool), np.zeros(data.shape, bool)
    gm[1:4], wm[5:9] = True, True
    even = np.indices(data.shape).sum(0) % 2 == 0
    data[gm] = np.where(even, 90, 110)[gm]
    data[wm] = np.where(even, 195, 205)[wm]
    return data, gm, wm


@pytest.fixture
def noisy():
    """Continuous intensities, tissue probabilities, and two unrelated smooth-free log fields, seeded."""
    rng = np.random.default_rng(3)
    shape = (12, 11, 10)
    labels = rng.integers(0, 3, shape)
    data = rng.gamma(20, 5, shape) * (1 + labels)
    probability = rng.uniform(0, 1, shape)
    return data, labels == 1, labels == 2, probability, rng.normal(0, 0.1, shape), rng.normal(0, 0.1, shape)


def test_image_metrics_by_hand(tissues):
    data, gm, wm = tissues
    values = metrics.image_metrics(data, gm, wm, voxel_size_mm=(1, 1, 1), air=~(gm | wm))
    assert values["cjv"] == pytest.approx((5 + 10) / (200 - 100))
    assert values["cv_wm"] == pytest.approx(5 / 200)
    assert values["cv_gm"] == pytest.approx(10 / 100)
    assert values["wm_gm_contrast"] == pytest.approx(100 / 300)
    assert values["cnr"] == pytest.approx(100 / np.sqrt(0 + 25 + 100))
    # Half the voxels lie at either value: medians and MADs coincide with means and standard deviations.
    assert values["cjv_mriqc"] == pytest.approx(1.4826022185 * 15 / 100)
    assert values["wm2max"] == pytest.approx(200 / 205)
    # A checkerboard of period 2 is gone after 4 mm of smoothing at 1 mm.
    assert values["cjv_smoothed"] < 0.1 * values["cjv"]
    assert values["undefined"] == {}


def test_every_metric_is_in_the_catalogue(tissues):
    data, gm, wm = tissues
    names = set(metrics.image_metrics(data, gm, wm, voxel_size_mm=(1, 1, 1), air=~gm))
    names |= set(metrics.field_metrics(1 + data, gm)) | set(metrics.field_scores(1 + data, 2 + data, gm | wm))
    assert names - {"undefined"} == set(METRICS) - {"relative_mae", "dice", "mean_hausdorff", "jsd"}
    for name, metric in METRICS.items():
        assert metric.name == name and metric.unit and metric.definition and metric.reference
        assert metric.direction in {"lower", "higher", "one", "none"}


def test_cjv_mriqc_agrees_with_the_estimators_mriqc_calls(noisy):
    data, _, _, p, *_ = noisy
    q = 1 - p

    def robust(probability):
        median = DescrStatsW(data.ravel(), weights=probability.ravel()).quantile([0.5], return_pandas=False)[0]
        return median, mad(data[probability > 0.5 * probability.max()], center=median)

    (mu_gm, sigma_gm), (mu_wm, sigma_wm) = robust(p), robust(q**3)
    expected = (sigma_wm + sigma_gm) / abs(mu_wm - mu_gm)
    assert metrics.cjv_mriqc(data, p, q**3) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("factor", [1e-3, 7.5, 1e5])
def test_metrics_do_not_depend_on_scale(noisy, factor):
    data, gm, wm, p, *_ = noisy
    options = {"voxel_size_mm": (1, 2, 3), "gm_probability": p, "wm_probability": 1 - p, "air": ~(gm | wm)}
    one, other = (metrics.image_metrics(image, gm, wm, **options) for image in (data, factor * data))
    assert one.pop("undefined") == other.pop("undefined") == {}
    assert other == pytest.approx(one, rel=1e-5)


def test_scores_do_not_depend_on_the_fields_scale(noisy):
    *_, a, b = noisy
    mask = a > -0.05
    one = metrics.field_scores(np.exp(a), np.exp(b), mask)
    other = metrics.field_scores(5 * np.exp(a), 0.2 * np.exp(b), mask)
    assert one.pop("undefined") == other.pop("undefined") == {}
    assert other == pytest.approx(one, rel=1e-9)


def test_a_correlated_but_weak_field_is_found_out_by_the_slope(noisy):
    *_, truth, error = noisy
    mask = np.ones(truth.shape, bool)
    weak = 0.01 * truth
    assert metrics.field_correlation(weak, truth, mask) == pytest.approx(1)
    assert metrics.response_slope(weak, truth, mask) == pytest.approx(0.01)
    assert metrics.log_field_rmse(weak, truth, mask) == pytest.approx(0.99 * truth.std())
    assert metrics.response_slope(truth + 3, truth, mask) == pytest.approx(1)
    slope, _ = np.polyfit(truth[mask], (truth + error)[mask], 1)
    assert metrics.response_slope(truth + error, truth, mask) == pytest.approx(slope)
    r = np.corrcoef(truth[mask], (truth + error)[mask])[0, 1]
    assert metrics.field_correlation(truth + error, truth, mask) == pytest.approx(r)


def test_residual_cov_by_hand():
    mask = np.zeros((2, 10, 2), bool)
    mask[0] = True
    truth = np.full(mask.shape, 2.0)
    bias = np.full(mask.shape, 99.0)
    bias[0, :5], bias[0, 5:] = 1.8, 2.2  # ratios 0.9 and 1.1: mean 1, sigma 0.1
    assert metrics.residual_cov(bias, truth, mask) == pytest.approx(0.1)
    assert metrics.residual_cov(3 * truth, truth, mask) == pytest.approx(0, abs=1e-12)


def test_field_metrics_by_hand():
    bias = np.linspace(0.5, 1.5, 1001).reshape(7, 11, 13)
    values = metrics.field_metrics(bias, np.ones(bias.shape, bool))
    expected = {"inu_range": 0.9, "inu_med": 1.0, "field_min": 0.5, "field_max": 1.5}
    assert values.pop("undefined") == {}
    assert values == pytest.approx(expected)


def test_relative_mae_scales(noisy):
    data, *_ = noisy
    mask = np.ones(data.shape, bool)
    truth = data.copy()
    truth[0, 0, 0] *= 50  # an outlier that draws the L2 scale, not the L1 scale
    for scale in ("L1", "L2"):
        assert metrics.relative_mae(4 * data, data, mask, scale=scale) == pytest.approx(0, abs=1e-12)
    assert metrics.relative_mae(4 * data, data, mask, scale="none") == pytest.approx(3)
    errors = {scale: metrics.relative_mae(data, truth, mask, scale=scale) for scale in ("L1", "L2")}
    grid = np.abs(np.linspace(0.5, 2, 301)[:, None] * data[mask] - truth[mask]).mean(1) / truth.mean()
    assert errors["L1"] == pytest.approx(grid.min(), rel=1e-9)
    assert errors["L1"] < errors["L2"]


def test_dice_by_hand():
    a = np.array([1, 1, 1, 0, 0, 0], bool)
    b = np.array([0, 1, 1, 1, 0, 0], bool)
    assert metrics.dice(a, b) == pytest.approx(4 / 6)
    assert metrics.dice(a, a) == 1
    assert metrics.dice(a, ~a) == 0


def test_tissue_masks_follow_fmripreps_labels():
    masks = metrics.tissue_masks(np.array([0, 1, 2, 3]))
    assert {tissue: mask.nonzero()[0].tolist() for tissue, mask in masks.items()} == {"GM": [1], "WM": [2], "CSF": [3]}


def test_undefined_is_none_with_a_reason(tissues):
    data, gm, wm = tissues
    nothing = np.zeros_like(gm)
    values = metrics.image_metrics(data, nothing, wm, voxel_size_mm=(1, 1, 1))
    for name in ("cjv", "cjv_mriqc", "cjv_smoothed", "cv_gm", "wm_gm_contrast"):
        assert values[name] is None and "gray matter" in values["undefined"][name]
    assert values["cv_wm"] == pytest.approx(0.025)
    flat = metrics.image_metrics(np.where(gm | wm, 7.0, 0.0), gm, wm, voxel_size_mm=(1, 1, 1))
    assert flat["cjv"] is None and "same intensity" in flat["undefined"]["cjv"]
    negative = metrics.image_metrics(-data, gm, wm, voxel_size_mm=(1, 1, 1))
    assert negative["cv_wm"] is None and "not positive" in negative["undefined"]["cv_wm"]
    scores = metrics.field_scores(np.ones_like(data), np.ones_like(data), gm)
    assert scores["response_slope"] is None and scores["field_correlation"] is None
    assert scores["residual_cov"] == 0
    with pytest.raises(UndefinedMetricError, match="empty"):
        metrics.dice(nothing, nothing)


def test_voxels_that_are_not_finite_are_left_out(tissues):
    data, gm, wm = tissues
    spoiled = data.copy()
    spoiled[1, 0, :2] = np.nan, np.inf  # one voxel of each of the two gray values
    values = metrics.image_metrics(spoiled, gm, wm, voxel_size_mm=(1, 1, 1))
    assert values["cv_gm"] == pytest.approx(0.1)
    assert values["cjv"] == pytest.approx(0.15)
    assert values["undefined"] == {}
