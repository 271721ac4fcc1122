"""Simulated heads against what was asked for: labels, intensities, noise, field and brain, exactly where possible."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import make_labels, reorient

from biascorr_pydra.errors import GridMismatchError, InvalidImageError, InvalidParameterError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.simulation.heads import (
    CONTRASTS,
    N_LABELS,
    HeadParameters,
    HeadSampler,
    inject_bias,
    load_label_map,
    sample_log_bias,
    simulate_head,
)


def plain(n: int, **changes) -> HeadParameters:
    """Parameters under which the grid is the label map's own, without blur, texture, noise or field."""
    means = torch.arange(N_LABELS, dtype=torch.float32) / 1000
    values = {
        "contrast": "random",
        "means": means,
        "deviations": torch.zeros(N_LABELS),
        "rotation": torch.eye(3),
        "field_of_view": ((n - 1) / n,) * 3,
        "translation": (0.0,) * 3,
        "displacement": torch.zeros(3, 7, 7, 7),
        "blur": (0.0,) * 3,
        "noise": 0.0,
        "stripped": False,
        "log_bias": torch.zeros(4, 4, 4),
        "noise_seed": 0,
    }
    return HeadParameters(**{**values, **changes})


@pytest.fixture(scope="module")
def labels():
    return make_labels()


def test_without_changes_the_label_map_comes_back(labels):
    head = simulate_head(labels, plain(40), (40,) * 3)
    assert torch.equal(head.labels, labels.long())
    assert torch.equal(head.clean, labels.float() / 1000)
    assert torch.equal(head.image, head.clean)
    assert torch.equal(head.brain, (labels > 0) & (labels < 500))
    assert torch.equal(head.log_bias, torch.zeros(40, 40, 40))


def test_a_quarter_turn_is_a_quarter_turn(labels):
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    head = simulate_head(labels, plain(40, rotation=turn), (40,) * 3)
    # Position p of the new grid shows position R p of the map: the new first axis runs along the map's second.
    assert torch.equal(head.labels, torch.rot90(labels, -1, (0, 1)).long())


def test_translation_and_field_of_view_in_known_voxels(labels):
    moved = simulate_head(labels, plain(40, translation=(3 / 40, 0, 0)), (40,) * 3).labels
    assert torch.equal(moved[:-3], labels[3:].long())
    half = simulate_head(labels, plain(40, field_of_view=(19 / 40,) * 3), (20,) * 3)
    assert torch.equal(half.labels, labels[10:30, 10:30, 10:30].long())


def test_blur_spreads_a_voxel_by_the_given_weights():
    labels = torch.zeros((9, 9, 9), dtype=torch.int16)
    labels[4, 4, 4] = 100
    head = simulate_head(labels, plain(9, blur=(0.25, 0.1, 0.0)), (9,) * 3)
    expected = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.1, 0.8, 0.1])) * 0.1
    torch.testing.assert_close(head.clean[3:6, 3:6, 4], expected)
    assert head.clean.sum().item() == pytest.approx(0.1)


def test_image_is_clean_times_bias_and_bias_has_mean_one_in_the_brain(labels):
    parameters = HeadSampler(noise=(0, 0)).sample(torch.Generator().manual_seed(3))
    head = simulate_head(labels, parameters, (48, 50, 44))
    torch.testing.assert_close(head.image, head.clean * head.log_bias.exp(), rtol=1e-6, atol=0)
    assert head.log_bias[head.brain].exp().mean().item() == pytest.approx(1, abs=1e-5)
    spline = LogBiasSpline.spanning(parameters.log_bias.numpy(), (48, 50, 44)).on_grid((48, 50, 44))
    difference = head.log_bias.numpy() - spline
    assert np.ptp(difference) < 1e-5


def test_noise_is_rician(labels):
    head = simulate_head(labels, plain(40, noise=0.05), (40,) * 3)
    air = head.image[head.labels == 0]
    assert air.mean().item() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.01)
    scalp = head.image[head.labels == 507]
    assert (scalp**2).mean().item() == pytest.approx(0.507**2 + 2 * 0.05**2, rel=0.01)
    assert scalp.std().item() == pytest.approx(0.05, rel=0.03)


def test_stripping_leaves_the_brain_alone(labels):
    head = simulate_head(labels, plain(40, stripped=True), (40,) * 3)
    whole = simulate_head(labels, plain(40), (40,) * 3)
    assert torch.equal(head.brain, whole.brain)
    assert torch.equal(head.image, torch.where(whole.brain, whole.image, 0.0))


def test_one_seed_one_head(labels):
    heads = [
        simulate_head(labels, HeadSampler().sample(torch.Generator().manual_seed(seed)), (32,) * 3)
        for seed in (7, 7, 8)
    ]
    for name, value in vars(heads[0]).items():
        assert torch.equal(value, getattr(heads[1], name)), name
    assert not torch.equal(heads[0].image, heads[2].image)


def test_one_parameter_can_be_changed_alone(labels):
    parameters = HeadSampler(noise=(0, 0)).sample(torch.Generator().manual_seed(5))
    without = dataclasses.replace(parameters, log_bias=torch.zeros(4, 4, 4))
    heads = [simulate_head(labels, p, (32,) * 3) for p in (parameters, without)]
    assert torch.equal(heads[0].clean, heads[1].clean)
    assert torch.equal(heads[1].image, heads[1].clean)


@pytest.mark.parametrize(
    ("contrast", "order"),
    [
        ("T1w", ("white matter", "grey matter", "csf")),
        ("T2w", ("csf", "grey matter", "white matter")),
        ("FLAIR", ("grey matter", "white matter", "csf")),
    ],
)
def test_tissues_are_ordered_as_in_the_contrast(contrast, order):
    one_label = {"white matter": 2, "grey matter": 42, "csf": 4}
    sampler, generator = HeadSampler(contrasts=(contrast,)), torch.Generator().manual_seed(0)
    for _ in range(20):
        parameters = sampler.sample(generator)
        assert parameters.contrast == contrast
        bright, middle, dark = (parameters.means[one_label[group]].item() for group in order)
        assert bright > middle > dark > 0
        assert parameters.means[2] == parameters.means[41]
        assert parameters.means[0] == parameters.deviations[0] == 0


def test_intensities_stay_in_their_ranges():
    generator = torch.Generator().manual_seed(1)
    for contrast in CONTRASTS:
        means = HeadSampler(contrasts=(contrast,)).sample(generator).means
        assert means[500:].min() >= 0.02
        assert means[500:].max() <= 1.1
        assert means[1:500].min() > 0


@pytest.mark.parametrize("spans", [(1, 1, 1), (4, 4, 4), (1, 2, 3)])
def test_field_has_the_standard_deviation_asked_for(spans):
    points = sample_log_bias(spans, 0.2, torch.Generator().manual_seed(2))
    assert points.shape == tuple(n + 3 for n in spans)
    values = LogBiasSpline.spanning(points.numpy(), (60, 60, 60)).on_grid((60, 60, 60))
    assert values.std() == pytest.approx(0.2, rel=0.06)
    assert abs(values.mean()) < 0.01


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("noise", (0.1, 0.05), "0.2"),
        ("noise", (-0.1, 0.05), "0.2"),
        ("blur", (0.0, 0.5), "0.333"),
        ("field_sd", (0.0, 2.0), "1"),
        ("field_spans", (0, 4), "16"),
        ("field_of_view", (1.0,), "3"),
        ("stripped", 1.5, "1"),
        ("max_rotation_degrees", -1.0, "45"),
        ("max_elastic", float("nan"), "0.1"),
    ],
)
def test_ranges_are_checked_with_bound_and_value(name, value, bound):
    with pytest.raises(InvalidParameterError) as caught:
        HeadSampler(**{name: value})
    assert name in str(caught.value)
    assert bound in str(caught.value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("contrasts", [(), ("T1",)])
def test_unknown_contrasts_are_refused(contrasts):
    with pytest.raises(InvalidParameterError, match="FLAIR"):
        HeadSampler(contrasts=contrasts)


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(8, 8, dtype=torch.int16),
        torch.zeros(8, 8, 8),
        torch.full((8, 8, 8), -1),
        torch.full((8, 8, 8), 2000),
        torch.full((8, 8, 8), 507),
    ],
    ids=["2-D", "float", "negative", "too large", "no brain"],
)
def test_what_is_no_label_map_is_refused(bad):
    with pytest.raises(InvalidImageError):
        simulate_head(bad, plain(8), (8,) * 3)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "SAR"])
def test_label_maps_are_read_in_one_orientation(tmp_path, labels, codes):
    img = nib.Nifti1Image(np.pad(labels.numpy(), 6), np.diag([1.0, 1, 1, 1]))
    nifti.save(reorient(img, codes), tmp_path / "seg.nii.gz")
    label_map = load_label_map(tmp_path / "seg.nii.gz", voxel_size_mm=1)
    inside = labels[tuple(slice(w.min(), w.max() + 1) for w in torch.nonzero(labels, as_tuple=True))]
    # The neck covers more than 5% of the lowest slice, so that no empty voxel is put below it.
    assert torch.equal(label_map[1:-1, 1:-1, :-1], inside)
    assert not label_map[0].any()
    assert not label_map[:, :, -1].any()
    assert label_map[:, :, 0].any()


def test_label_maps_are_thinned_to_the_voxel_size(tmp_path, labels):
    img = nib.Nifti1Image(labels.numpy(), np.diag([1.0, 1, 2, 1]))
    nifti.save(img, tmp_path / "seg.nii")
    label_map = load_label_map(tmp_path / "seg.nii", voxel_size_mm=2)
    thin = labels[::2, ::2]
    inside = thin[tuple(slice(w.min(), w.max() + 1) for w in torch.nonzero(thin, as_tuple=True))]
    assert torch.equal(label_map[1:-1, 1:-1, :-1], inside)


@pytest.mark.parametrize("value", [0.5, -1, 4000])
def test_files_that_are_no_label_maps_are_refused(tmp_path, value):
    data = np.zeros((6, 6, 6), np.float32)
    data[2:4, 2:4, 2:4] = value
    nifti.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "scan.nii")
    with pytest.raises(InvalidImageError, match=r"scan\.nii.*integers from 0 to 1023"):
        load_label_map(tmp_path / "scan.nii")


def test_injected_bias_is_multiplied_in_and_can_be_taken_out_again():
    rng = np.random.default_rng(0)
    data, log_bias = rng.uniform(1, 2, (4, 5, 6)).astype(np.float32), rng.normal(0, 0.2, (4, 5, 6))
    biased = inject_bias(data, log_bias)
    assert biased.dtype == np.float32
    np.testing.assert_allclose(biased, data * np.exp(log_bias), rtol=1e-6)
    np.testing.assert_allclose(inject_bias(biased, -log_bias), data, rtol=1e-6)
    tensor = inject_bias(torch.from_numpy(data), torch.from_numpy(log_bias))
    np.testing.assert_allclose(tensor.numpy(), biased, rtol=1e-6)


def test_injected_bias_must_fit_and_be_finite():
    with pytest.raises(GridMismatchError, match=r"\(4, 4, 3\)"):
        inject_bias(np.ones((4, 4, 4)), np.zeros((4, 4, 3)))
    with pytest.raises(InvalidParameterError, match="finite"):
        inject_bias(np.ones((2, 2, 2)), np.full((2, 2, 2), np.nan))
