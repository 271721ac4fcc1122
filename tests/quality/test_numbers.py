"""The gate's numbers of fields and images that are known in closed form, on grids of 4 and of 2 mm."""

import numpy as np
import pytest

from biascorr_pydra.quality import decide, field_numbers, judge

N = 40
MM = (4.0,) * 3


def grid(n=N):
    return np.meshgrid(*[np.arange(n, dtype=float)] * 3, indexing="ij")


def image(log_intensity, seed=0):
    """An image of this log intensity, with noise so small that it only makes all values different."""
    noise = np.random.default_rng(seed).normal(0, 1e-4, log_intensity.shape)
    return (100 * np.exp(log_intensity + noise)).astype(np.float32)


def numbers_of(log_intensity, log_bias, region=None, mm=MM, **options):
    region = np.ones(log_bias.shape, bool) if region is None else region
    return field_numbers(image(log_intensity), np.exp(log_bias), region, mm, **options)


def test_a_ramp():
    """A log field that rises by 0.002 per mm along the first axis, over an image that shows it and nothing else."""
    ramp = 0.002 * 4 * grid()[0]
    numbers = numbers_of(ramp, ramp)
    steps = 0.008 * np.arange(N)
    assert numbers["field_sd"] == pytest.approx(steps.std(), rel=1e-4)
    assert numbers["field_range"] == pytest.approx(np.exp(np.subtract(*np.percentile(ramp, (99, 1)))), rel=1e-4)
    assert numbers["gradient_per_mm"] == pytest.approx(0.002, rel=1e-3)
    assert numbers["curvature"] == pytest.approx(0, abs=1e-4)
    assert numbers["support"] == pytest.approx(1, abs=0.02)
    # The histogram goes from 40 equal steps to one.
    assert numbers["sharpening"] == pytest.approx(np.log(40), abs=0.1)


def test_a_parabola_bends_by_its_second_difference_over_16_mm():
    x = 4 * (grid()[0] - N / 2)
    numbers = numbers_of(np.zeros((N,) * 3), 2e-5 * x**2)
    # 2 c 16^2 along one axis of three, and 0 along the others
    assert numbers["curvature"] == pytest.approx(2 * 2e-5 * 16**2 / np.sqrt(3), rel=1e-3)
    # Steepest within 4 mm of either end: the 99th percentile over three axes of which one changes.
    slopes = np.abs(np.diff(2e-5 * x[:, 0, 0] ** 2)) / 4
    expected = np.percentile(np.concatenate([slopes, np.zeros(2 * len(slopes))]), 99)
    assert numbers["gradient_per_mm"] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("factor", "support"), [(1, 1), (2, 0.5), (-1, -1)])
def test_support_is_the_part_of_the_field_that_the_image_shows(factor, support):
    ramp = 0.004 * grid()[0]
    assert numbers_of(ramp, factor * ramp)["support"] == pytest.approx(support, abs=0.05)


def test_support_looks_within_one_tissue_and_along_every_axis():
    x, y, _ = grid()
    tissue = np.where(y < N / 2, 0.0, 1.0)  # the step between tissues, on the axis of the field, says nothing
    field = 0.004 * y
    assert numbers_of(tissue + field, field)["support"] == pytest.approx(1, abs=0.05)
    assert numbers_of(np.zeros_like(x), 0.004 * x)["support"] == pytest.approx(0, abs=0.05)


def test_support_compares_voxels_12_mm_apart():
    """A field that comes back every 40 mm: there, nothing is left of it, and the image's noise is."""
    wave = 0.05 * np.sin(2 * np.pi * 4 * grid()[0] / 40)
    assert numbers_of(wave, wave)["support"] == pytest.approx(1, abs=0.05)


def test_support_does_not_look_across_steps_between_tissues():
    """Tissues that brighten along the field's axis every 16 mm: most pairs lie across a step of 0.5."""
    x, *_ = grid()
    field = 0.004 * x
    assert numbers_of(0.5 * (x // 4) + field, field)["support"] == pytest.approx(1, abs=0.05)


def test_support_favours_neither_0_nor_1():
    """A field that changes by more than the image may within one tissue is seen where it is, and where it is not."""
    steep = 0.05 * grid()[0]
    assert numbers_of(np.zeros_like(steep), steep)["support"] == pytest.approx(0, abs=0.05)
    assert numbers_of(steep, steep)["support"] == pytest.approx(1, abs=0.05)


def test_support_is_a_median_weighted_by_the_change_of_the_field():
    x, y, _ = grid()
    field = 0.004 * x
    # The image bears the field out in 60% of the voxels, and knows nothing of it in the others.
    assert numbers_of(np.where(y < 24, field, 0.0), field)["support"] == pytest.approx(1, abs=0.05)
    assert numbers_of(np.where(y < 16, field, 0.0), field)["support"] == pytest.approx(0, abs=0.05)
    # It does so in 40% of the voxels, but there the field is four times as steep.
    region = (y < 15) | (y >= 18)
    uneven = np.where(y < 16, field, field / 4)
    assert numbers_of(np.where(y < 16, uneven, 0.0), uneven, region)["support"] == pytest.approx(1, abs=0.05)


def test_a_constant_field_has_no_support_and_no_gradient():
    numbers = numbers_of(np.zeros((N,) * 3), np.zeros((N,) * 3))
    assert numbers["support"] is None
    assert (numbers["field_sd"], numbers["gradient_per_mm"], numbers["curvature"]) == (0, 0, 0)
    assert numbers["field_range"] == 1 and numbers["sharpening"] == 0


def test_contrast_is_the_distance_between_two_groups():
    tissue = np.where(grid()[1] < N / 2, 0.0, np.log(2))
    taken = numbers_of(tissue, np.where(tissue > 0, np.log(1.1), 0.0))
    assert taken["contrast_change"] == pytest.approx(-np.log(1.1) / np.log(2), abs=0.01)
    given = numbers_of(tissue, np.where(tissue > 0, -np.log(1.1), 0.0))
    assert given["contrast_change"] == pytest.approx(np.log(1.1) / np.log(2), abs=0.01)


def test_an_image_of_one_value_has_no_contrast():
    flat = np.full((N,) * 3, 7.0, np.float32)
    numbers = field_numbers(flat, np.ones_like(flat), np.ones(flat.shape, bool), MM)
    assert numbers["contrast_change"] is None and numbers["sharpening"] == 0


@pytest.mark.parametrize(("n_voxels", "judged"), [(499, False), (500, True)])
def test_fewer_than_500_positive_voxels_say_nothing(n_voxels, judged):
    data = image(0.004 * grid()[0])
    region = np.zeros(data.shape, bool)
    region[:10, :10, :6] = True
    data[region & (np.cumsum(region.ravel()).reshape(region.shape) > n_voxels)] = 0
    numbers = field_numbers(data, np.exp(0.004 * grid()[0]), region, MM)
    assert (numbers is not None) is judged
    verdict = judge(data, np.exp(0.004 * grid()[0]), region, MM)
    assert (verdict.verdict != "not judged") is judged


def test_the_rim_is_left_out_where_enough_is_left():
    region = np.zeros((N,) * 3, bool)
    region[5:35, 5:35, 5:35] = True
    inner = np.zeros_like(region)
    inner[8:32, 8:32, 8:32] = True
    log_bias = np.where(inner, 0.0, 0.3)
    options = {"region": region, "log_intensity": np.zeros((N,) * 3), "log_bias": log_bias}
    assert numbers_of(**options, rim_mm=12.0)["field_sd"] == 0
    assert numbers_of(**options, rim_mm=8.0)["field_sd"] > 0.05 and numbers_of(**options)["field_sd"] > 0.05
    small = np.zeros_like(region)
    small[5:14, 5:14, 5:14] = True  # without 12 mm, 27 voxels are left
    log_bias = np.where(small, 0.004 * grid()[0], 0.0)
    with_rim = numbers_of(np.zeros((N,) * 3), log_bias, small, rim_mm=12.0)
    assert with_rim == numbers_of(np.zeros((N,) * 3), log_bias, small)


def test_of_a_detected_head_12_mm_are_left_out():
    region = np.zeros((N,) * 3, bool)
    region[5:35, 5:35, 5:35] = True
    ramp = 0.004 * grid()[0]
    data = image(np.where(region, ramp, 0) + 0.2 * (grid()[1] > 20))
    head = judge(data, np.exp(ramp), region, MM, whole_head=True)
    assert head == decide(field_numbers(data, np.exp(ramp), region, MM, rim_mm=12.0))
    assert head.checks != judge(data, np.exp(ramp), region, MM).checks


def test_further_numbers_are_judged_with_the_field_s():
    ramp = 0.004 * grid()[0]
    region = np.ones(ramp.shape, bool)
    verdict = judge(image(ramp), np.exp(ramp), region, MM, further={"response": 0.1})
    assert verdict.verdict == "rejected" and verdict.checks["response"] == {
        "value": 0.1,
        "least": 0.2,
        "passed": False,
    }
    assert judge(image(ramp), np.exp(ramp), region, MM, further={"response": 0.3}).verdict == "accepted"


def sharpening_under_noise(n):
    """Of a ramp over n x 2 mm, under noise that the mean of eight voxels leaves a third of."""
    x, *_ = grid(n)
    ramp = 0.32 * x / n
    noise = np.random.default_rng(1).normal(0, 0.08, ramp.shape)
    region = np.ones(ramp.shape, bool)
    return field_numbers(image(ramp + noise), np.exp(ramp), region, (2.0,) * 3)["sharpening"]


def test_fine_grids_are_seen_at_4_mm_and_averaged():
    """At 2 mm every second voxel is looked at, as the mean of 2 x 2 x 2."""
    ramp = 0.002 * 2 * grid(2 * N)[0]
    fine = field_numbers(image(ramp), np.exp(ramp), np.ones(ramp.shape, bool), (2.0,) * 3)
    coarse = numbers_of(0.002 * 4 * grid()[0], 0.002 * 4 * grid()[0])
    for name in ("field_sd", "gradient_per_mm", "support"):
        assert fine[name] == pytest.approx(coarse[name], rel=0.03)
    assert sharpening_under_noise(36) > 0.6


def test_where_few_voxels_would_be_left_every_one_is_looked_at():
    assert sharpening_under_noise(30) < 0.5  # every second of 30^3 voxels are fewer than 4000


def test_whole_numbers_are_spread_over_their_step():
    """Ten grey levels fill ten bins of the histogram; their spread keeps a correction from seeming to blur."""
    ramp = 0.01 * grid()[0]
    levels = np.round(10 * np.exp(ramp)).astype(np.float32)
    numbers = field_numbers(levels, np.exp(ramp), np.ones(ramp.shape, bool), MM)
    assert numbers["sharpening"] > 0.5
