"""UBC: its network and its corrector, with the two steps at test time."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import make_phantom, reorient

from biascorr_pydra import weights
from biascorr_pydra.correction.correct import correct_image
from biascorr_pydra.errors import InvalidImageError, InvalidParameterError, WeightsError
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.methods.ubc import corrector as ubc_corrector
from biascorr_pydra.methods.ubc.networks import UBC
from biascorr_pydra.metrics import residual_cov, response_slope
from biascorr_pydra.simulation.heads import inject_bias

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the network


def test_an_untrained_network_gives_a_field_of_one():
    network = UBC()
    x = torch.rand(2, 1, 100, 100, 100)
    assert network.encoder(x).shape == (2, 128, 7, 7, 7)
    assert torch.equal(network.log_lattice(x), torch.zeros(2, 1, 7, 7, 7))
    assert torch.equal(network(x), torch.zeros_like(x))


@pytest.mark.parametrize("lattice", [3, 4, 5, 7, 9, 11])
def test_the_network_and_the_field_algebra_mean_the_same_spline(lattice):
    torch.manual_seed(lattice)
    network = UBC(52, lattice)
    torch.nn.init.normal_(network.head.weight)
    x = torch.rand(1, 1, 52, 52, 52)
    with torch.no_grad():
        control_points, field = network.log_lattice(x)[0, 0].numpy(), network(x)[0, 0].numpy()
    assert control_points.shape == (max(lattice, 4),) * 3
    assert np.ptp(field) > 0.01
    expected = LogBiasSpline.spanning(control_points, (52,) * 3).on_grid((52,) * 3)
    np.testing.assert_allclose(field, expected, atol=1e-5)


def test_a_lattice_of_three_is_a_parabola_along_each_axis():
    torch.manual_seed(0)
    network = UBC(52, 3)
    torch.nn.init.normal_(network.head.weight)
    with torch.no_grad():
        field = network(torch.rand(1, 1, 52, 52, 52))[0, 0].double().numpy()
    powers = np.vander(np.linspace(-1, 1, 52), 3)
    for axis in range(3):
        lines = np.moveaxis(field, axis, 0).reshape(52, -1)
        assert np.abs(np.diff(lines, n=2, axis=0)).max() > 1e-5
        np.testing.assert_allclose(powers @ np.linalg.lstsq(powers, lines)[0], lines, atol=1e-5)


def test_features_are_interpolated_to_the_control_points():
    # Places 0, 16, ..., 96. Of 7 control points, 24.75 samples apart, the first and last lie beyond the image.
    weights_of_second, weights_of_fourth = np.zeros(7), np.zeros(7)
    weights_of_second[0] = 1  # at 0
    weights_of_fourth[[3, 4]] = 1 - 1.5 / 16, 1.5 / 16  # at 49.5
    placement = UBC().placement.numpy()
    np.testing.assert_allclose(placement[[1, 3]], [weights_of_second, weights_of_fourth], atol=1e-6)
    np.testing.assert_allclose(placement[[0, -1]], [np.eye(7)[0], np.eye(7)[-1]], atol=1e-6)
    np.testing.assert_allclose(placement.sum(1), 1, atol=1e-6)


def test_filters_are_the_papers():
    sizes = [tuple(m.weight.shape) for m in UBC().encoder if isinstance(m, torch.nn.Conv3d)]
    assert sizes == [(16, 1, 3, 3, 3), (32, 16, 3, 3, 3), (64, 32, 3, 3, 3), (128, 64, 3, 3, 3)]


# --- the corrector


def scan_of(data: np.ndarray, mask=None) -> Scan:
    return Scan(data.astype(np.float32), np.ones(data.shape, bool), mask, (2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def phantom_100():
    return make_phantom((100, 100, 100), voxel_mm=2.0)


def test_known_weights_give_a_known_field(phantom_100, tmp_path):
    network = UBC()
    with torch.no_grad():
        network.head.bias.fill_(-math.log(2))
    weights.save(network.state_dict(), {}, tmp_path / "half.safetensors")
    corrector = get_corrector("ubc").from_options(weights_file=str(tmp_path / "half.safetensors"))
    estimate = corrector.estimate(scan_of(phantom_100.acquired))
    np.testing.assert_allclose(estimate.log_bias.on_grid((100,) * 3), math.log(2), rtol=1e-5)
    assert estimate.record["weights_sha256"] == weights.sha256_of(tmp_path / "half.safetensors")


def test_weights_that_change_on_disk_are_read_again(phantom_100, tmp_path):
    file = tmp_path / "w.safetensors"
    corrector = get_corrector("ubc").from_options(weights_file=str(file))
    for value in (0.5, 0.25):
        network = UBC()
        torch.nn.init.constant_(network.head.bias, value)
        weights.save(network.state_dict(), {}, file)
        points = corrector.estimate(scan_of(phantom_100.acquired)).log_bias.control_points
        np.testing.assert_allclose(points, -value, rtol=1e-6)


def test_the_shipped_weights_respond_to_a_field_and_reduce_it(phantom_100):
    corrector, p = get_corrector("ubc").from_options(), phantom_100
    log_bias = corrector.estimate(scan_of(p.acquired)).log_bias.on_grid((100,) * 3)
    before = residual_cov(np.ones_like(p.bias), p.bias, p.brain)
    assert residual_cov(np.exp(log_bias), p.bias, p.brain) < 0.7 * before
    log_k = np.broadcast_to(np.linspace(-0.2, 0.2, 100)[:, None, None], (100,) * 3)
    with_k = corrector.estimate(scan_of(inject_bias(p.acquired, log_k))).log_bias.on_grid((100,) * 3)
    assert 0.4 < response_slope(with_k - log_bias, log_k, p.brain) < 1.3


def test_the_unit_of_the_image_does_not_matter(phantom_100):
    corrector = get_corrector("ubc").from_options()
    points = [corrector.estimate(scan_of(phantom_100.acquired * s)).log_bias.control_points for s in (1, 1e-4, 1e4)]
    np.testing.assert_allclose(points[1], points[0], atol=1e-4)
    np.testing.assert_allclose(points[2], points[0], atol=1e-4)


def test_a_mask_does_not_change_the_estimate(phantom_100):
    corrector, p = get_corrector("ubc").from_options(), phantom_100
    points = [corrector.estimate(scan_of(p.acquired, mask)).log_bias.control_points for mask in (None, p.brain)]
    assert np.array_equal(*points)


def test_the_estimate_does_not_depend_on_threads_or_repetition(phantom_100):
    corrector = get_corrector("ubc").from_options()
    points = []
    for n in (1, 2, 1):
        torch.set_num_threads(n)
        points.append(corrector.estimate(scan_of(phantom_100.acquired), seed=n).log_bias.control_points)
    assert np.array_equal(points[0], points[2])
    assert np.array_equal(points[0], points[1])


@pytest.mark.parametrize("codes", ["LAS", "LPS", "oblique"])
def test_one_head_in_four_orientations_gets_one_field(codes):
    p = make_phantom()
    straight = correct_image(p.image(), method="ubc")
    turned = correct_image(reorient(p.image(), codes), method="ubc")
    np.testing.assert_allclose(straight.bias.affine, p.affine)
    expected = np.asarray(reorient(straight.bias, codes).dataobj)
    np.testing.assert_allclose(np.asarray(turned.bias.dataobj), expected, rtol=2e-4)


def test_an_image_without_positive_voxels_is_refused():
    with pytest.raises(InvalidImageError, match="positive"):
        get_corrector("ubc").from_options().estimate(scan_of(np.full((100,) * 3, -1.0)))


def test_weights_of_another_network_are_refused(phantom_100, tmp_path):
    weights.save(torch.nn.Linear(2, 2).state_dict(), {}, tmp_path / "toy.safetensors")
    for file, words in (
        (tmp_path / "toy.safetensors", "fit the network UBC"),
        (tmp_path / "no.safetensors", "no such"),
    ):
        with pytest.raises(WeightsError, match=words):
            get_corrector("ubc").from_options(weights_file=str(file)).estimate(scan_of(phantom_100.acquired))


def test_parameters_are_the_fields_of_the_class():
    corrector = get_corrector("ubc").from_options()
    assert set(corrector.parameters()) == {"flips", "ttt_steps", "ttt_learning_rate", "weights_file"}
    assert dataclasses.is_dataclass(corrector)


# --- test-time augmentation and training


@pytest.fixture(scope="module")
def rough_weights(tmp_path_factory):
    """Weights that no training made, whose field depends on the image; with momentum they would also drift."""
    torch.manual_seed(1)
    network = UBC()
    torch.nn.init.normal_(network.head.weight, std=0.5)
    file = tmp_path_factory.mktemp("weights") / "rough.safetensors"
    weights.save(network.state_dict(), {}, file)
    return file


def control_points(file, data, **options):
    corrector = get_corrector("ubc").from_options(weights_file=str(file), **options)
    return corrector.estimate(scan_of(data)).log_bias.control_points


def test_flips_average_the_log_fields_of_the_image_and_its_three_mirror_images(phantom_100, rough_weights):
    data = phantom_100.acquired * (1 + np.linspace(0, 0.5, 100)[:, None, None])
    by_hand = [control_points(rough_weights, data)]
    by_hand += [np.flip(control_points(rough_weights, np.flip(data, axis)), axis) for axis in range(3)]
    assert np.ptp(by_hand, axis=0).max() > 1e-3
    averaged = control_points(rough_weights, data, flips=True)
    np.testing.assert_allclose(averaged, np.mean(by_hand, axis=0), atol=1e-5)


def test_training_on_the_image_lowers_its_loss_and_leaves_the_network_as_it_was(phantom_100):
    corrector, plain = (get_corrector("ubc").from_options(ttt_steps=n) for n in (4, 0))
    scan, other = scan_of(phantom_100.acquired), scan_of(phantom_100.acquired[::-1])
    first = plain.estimate(scan).log_bias.control_points
    shared = ubc_corrector.loaded_network("ubc", weights.sha256_of("ubc"), "cpu")
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    trained = corrector.estimate(scan, seed=3)
    lost, kept = trained.record["ttt_loss"]
    assert kept < lost
    assert trained.record["ttt_used"]
    assert np.abs(trained.log_bias.control_points - first).max() > 1e-3
    # The network that all scans share is as it was, and so are later estimates.
    assert ubc_corrector.loaded_network("ubc", weights.sha256_of("ubc"), "cpu") is shared
    assert not shared.training
    assert all(torch.equal(before[name], tensor) for name, tensor in shared.state_dict().items())
    assert all(p.grad is None for p in shared.parameters())
    assert np.array_equal(plain.estimate(scan).log_bias.control_points, first)
    # Every scan of a batch begins from the shared network, and the seed alone decides what its training sees.
    batch = corrector.estimate_batch([other, scan], seed=3)
    np.testing.assert_array_equal(batch[1].log_bias.control_points, trained.log_bias.control_points)
    assert np.abs(corrector.estimate(scan, seed=4).log_bias.control_points - batch[1].log_bias.control_points).max() > 0


def test_training_on_the_image_that_does_not_help_is_not_used(phantom_100):
    estimates = [
        get_corrector("ubc").from_options(**options).estimate(scan_of(phantom_100.acquired))
        for options in ({}, {"ttt_steps": 2, "ttt_learning_rate": 0.1})
    ]
    assert not estimates[1].record["ttt_used"]
    assert np.array_equal(*[estimate.log_bias.control_points for estimate in estimates])


def test_presets_are_the_papers_steps():
    presets = {name: get_corrector("ubc").from_options(name).parameters() for name in get_corrector("ubc").presets}
    assert list(presets) == ["default", "ttda", "ttda-ttt"]
    assert [p["flips"] for p in presets.values()] == [False, True, True]
    assert [p["ttt_steps"] > 0 for p in presets.values()] == [False, False, True]


@pytest.mark.parametrize(
    "bad", [{"ttt_steps": 101}, {"ttt_steps": -1}, {"ttt_steps": 2.5}, {"flips": 1}, {"ttt_learning_rate": 0}]
)
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(InvalidParameterError, match=next(iter(bad))):
        get_corrector("ubc").from_options(**bad)


def test_weights_for_another_lattice_say_so_in_their_card(phantom_100, tmp_path):
    network = UBC(lattice=5)
    torch.nn.init.constant_(network.head.bias, 0.5)
    weights.save(network.state_dict(), {"training": {"lattice": 5}}, tmp_path / "five.safetensors")
    np.testing.assert_allclose(
        control_points(tmp_path / "five.safetensors", phantom_100.acquired), -0.5 * np.ones((5,) * 3)
    )
    weights.save(network.state_dict(), {}, tmp_path / "unsaid.safetensors")
    with pytest.raises(WeightsError, match="placement"):
        control_points(tmp_path / "unsaid.safetensors", phantom_100.acquired)
