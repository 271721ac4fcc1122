"""deepem: the fit to classes, and the classes from histograms: what is pure, on arrays made by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods.deepem import pure_tissue
from biascorr_pydra.methods.deepem.fit import fit_classes, guide, stiffer
from biascorr_pydra.methods.deepem.networks import steps_to_neighbours
from biascorr_pydra.methods.deepem.pure_tissue import box_of

EXAMPLES = Path(__file__).parents[2] / "bids_examples"


pytestmark = pytest.mark.usefixtures("one_thread")


def mixture(shape=(20, 22, 24), noise=0.0, seed=0):
    """Log image, classes, true log field: three classes in blobs, each used in two thirds of its voxels."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(5, 5, 5)) * 0.2
    field = LogBiasSpline.spanning(points, shape).on_grid(shape, np.float64)
    blobs = LogBiasSpline.spanning(rng.normal(size=(9, 9, 9)), shape).on_grid(shape, np.float64)
    classes = np.digitize(blobs, np.quantile(blobs, (1 / 3, 2 / 3))) + 1
    log_image = np.array([0, 0.1, 0.9, 1.7])[classes] + field + noise * rng.normal(size=shape)
    used = np.where(rng.random(shape) < 2 / 3, classes, 0)
    return torch.from_numpy(log_image), torch.from_numpy(used), field


def difference(solution, truth):
    log_bias = LogBiasSpline.spanning(solution.control_points.numpy(), truth.shape).on_grid(truth.shape, np.float64)
    return (log_bias - log_bias.mean()) - (truth - truth.mean())


def test_field_and_means_are_found_together():
    log_image, used, field = mixture()
    solution = fit_classes(log_image, used, torch.ones_like(log_image), points=5, smoothness=1e-10)
    assert np.abs(difference(solution, field)).max() < 1e-3
    np.testing.assert_allclose(np.diff(solution.means.numpy()), [0.8, 0.8], atol=1e-4)
    # The constant that field and means share: the field is 0 on average where it was fitted.
    log_bias = LogBiasSpline.spanning(solution.control_points.numpy(), field.shape).on_grid(field.shape, np.float64)
    assert abs(log_bias[used.numpy() > 0].mean()) < 1e-9


def test_voxels_of_a_wrong_class_count_little():
    log_image, used, field = mixture(noise=0.02)
    rng = np.random.default_rng(1)
    wrong = torch.from_numpy(rng.random(field.shape) < 0.08) & (used > 0)
    used = torch.where(wrong, used % 3 + 1, used)
    weight = torch.ones_like(log_image)
    robust = fit_classes(log_image, used, weight, points=5, smoothness=1e-8)
    plain = fit_classes(log_image, used, weight, points=5, smoothness=1e-8, rounds=1)
    assert difference(robust, field).std() < 0.01 < difference(plain, field).std()
    np.testing.assert_allclose(robust.deviations.numpy(), 0.02, atol=0.006)


def test_smoothness_pulls_towards_a_straight_field():
    log_image, used, _ = mixture()
    stiff = fit_classes(log_image, used, torch.ones_like(log_image), points=5, smoothness=1e3)
    assert stiff.control_points.diff(n=2, dim=0).abs().max() < 1e-3


def test_a_field_to_start_from_tells_outliers_at_once():
    log_image, used, field = mixture(noise=0.02)
    wrong = torch.from_numpy(np.random.default_rng(1).random(field.shape) < 0.08) & (used > 0)
    used = torch.where(wrong, used % 3 + 1, used)
    weight, start = torch.ones_like(log_image), torch.from_numpy(field)
    once, plain = (
        fit_classes(log_image, used, weight, points=5, smoothness=1e-8, rounds=1, start=begin)
        for begin in (start, None)
    )
    assert difference(once, field).std() < 0.01 < difference(plain, field).std()


def test_smoothness_follows_the_field():
    log_image, used, _ = mixture(noise=0.02)

    def fit(smoothness, usual, rounds=2):
        options = {"points": 5, "smoothness": smoothness, "usual": usual, "rounds": rounds}
        return fit_classes(log_image, used, torch.ones_like(log_image), **options).control_points

    def roughness(points):
        return sum(float((points.diff(n=2, dim=axis) ** 2).sum()) for axis in range(3))

    usual_roughness = roughness(fit(1e-3, None, rounds=1))
    torch.testing.assert_close(fit(1e-3, usual_roughness), fit(1e-3, None))  # as rough as usual: as it was
    assert (
        roughness(fit(1e-3, usual_roughness / 10))
        > roughness(fit(1e-3, usual_roughness))
        > roughness(fit(1e-3, 3 * usual_roughness))
    )
    assert stiffer(2.0, 1.0) == 0.5
    assert (stiffer(1.0, 1e-6), stiffer(0.0, 1.0)) == pytest.approx((1 / 30, 10 / 3))


def test_another_field_guides_the_fit_where_there_is_no_voxel():
    log_image, used, field = mixture(noise=0.02)
    used[7:] = 0
    empty = torch.zeros_like(used, dtype=torch.bool)
    empty[14:] = True
    log_field = torch.from_numpy(field)

    def fit(guided):
        options = {"points": 5, "smoothness": 1e-8, "guided": guided}
        return fit_classes(log_image, used, torch.ones_like(log_image), **options)

    alone = difference(fit(None), field)
    guided = fit(guide(log_field, empty, points=5, weight=0.1))
    error = difference(guided, field)
    assert error[14:].std() < 0.01 < 0.1 < alone[14:].std()
    # Its shape alone counts: no constant, and nothing of it beside where it is to guide.
    other = torch.where(empty, log_field + 3, 17.0)
    torch.testing.assert_close(fit(guide(other, empty, points=5, weight=0.1)).control_points, guided.control_points)
    nowhere = fit(guide(log_field, torch.zeros_like(empty), points=5, weight=0.1))
    torch.testing.assert_close(nowhere.control_points, fit(None).control_points)


def test_weight_zero_is_as_good_as_unused():
    log_image, used, _ = mixture(noise=0.05)
    some = torch.rand(used.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    one = fit_classes(log_image, torch.where(some, used, 0), torch.ones_like(log_image), points=4, smoothness=1e-6)
    other = fit_classes(log_image, used, some.double(), points=4, smoothness=1e-6, rounds=1)
    same = fit_classes(
        log_image, torch.where(some, used, 0), torch.ones_like(log_image), points=4, smoothness=1e-6, rounds=1
    )
    torch.testing.assert_close(
        other.control_points - other.control_points.mean(), same.control_points - same.control_points.mean()
    )
    assert not torch.equal(one.control_points, same.control_points)


def test_the_box_around_a_mask_by_hand():
    mask = torch.zeros((6, 7, 8), dtype=torch.bool)
    mask[2, 3, 4] = mask[4, 3, 5] = True
    assert box_of(mask) == (slice(2, 5), slice(3, 4), slice(4, 6))
    assert box_of(mask, 2) == (slice(0, 6), slice(1, 6), slice(2, 8))


def test_steps_to_neighbours_by_hand():
    line = torch.tensor([0.0, 1.0, 1.0, 4.0]).view(4, 1, 1)
    assert steps_to_neighbours(line).flatten().tolist() == [1, 1, 3, 3]
    # 0 1 / 1 4: along both axes.
    assert steps_to_neighbours(line.view(1, 2, 2)).flatten().tolist() == [2, 4, 4, 6]


def test_the_contrast_comes_from_the_image():
    """Two tissues in stripes, a prior that only knows in which half each is more frequent."""
    shape = (24, 24, 24)
    generator = torch.Generator().manual_seed(0)
    share = torch.linspace(0.1, 0.9, 24).view(24, 1, 1).expand(shape)
    coarse = torch.rand((8, 8, 8), generator=generator).repeat_interleave(3, 0).repeat_interleave(3, 1)
    truth = (coarse.repeat_interleave(3, 2) < share).long() + 1
    prior = torch.zeros(9, *shape)
    prior[1], prior[2] = 1 - share, share
    noise = 0.05 * torch.randn(shape, generator=generator)
    for bright in (1, 2):  # whichever is brighter
        log_image = (truth == bright) * 0.5 + noise
        before = (prior.argmax(0) == truth).float().mean()
        posterior = pure_tissue.posterior(log_image, prior)
        assert before < 0.7 and (posterior.argmax(0) == truth).float().mean() > 0.8
        torch.testing.assert_close(posterior.sum(0), torch.ones(shape))


def test_outside_that_is_sure_stays_outside():
    prior = torch.full((9, 8, 8, 8), 1 / 9)
    prior[:, :4] = 0
    prior[0, :4] = 1
    posterior = pure_tissue.posterior(torch.rand((8, 8, 8), generator=torch.Generator().manual_seed(0)), prior)
    assert (posterior[0, :4] == 1).all() and (posterior[1:, :4] == 0).all()
