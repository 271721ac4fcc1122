"""UBC: its loss against hand-computed values, its training, and the corrector."""

import csv
import dataclasses
import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import make_phantom, reorient
from test_simulate import make_labels

from biascorr_pydra import image, weights
from biascorr_pydra.correct import correct_image
from biascorr_pydra.correctors import get_corrector
from biascorr_pydra.correctors._base import Scan
from biascorr_pydra.errors import InvalidImageError, InvalidParameterError, WeightsError
from biascorr_pydra.field import LogBiasSpline
from biascorr_pydra.metrics import residual_cov, response_slope
from biascorr_pydra.networks import UBC
from biascorr_pydra.simulate import HeadSampler, inject_bias
from biascorr_pydra.train import ubc as training

KERNEL = np.exp(-0.5 * np.arange(-4, 5) ** 2)
KERNEL_ENDS = np.pad(KERNEL / KERNEL.sum(), 1)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors; several test processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- the entropy layer


def test_histogram_of_values_at_bin_centres_is_their_counts_under_the_kernel():
    values = torch.tensor([[2.5, 2.5, 2.5, 7.5]])  # bins of width 1 from 0 to 20
    found = training.soft_histogram(values, torch.ones_like(values), 0, 20, bins=20)[0].numpy()
    # The histogram goes on as its mirror image beyond the first bin: what is in bin 2 is also at -2.
    bins = np.arange(20)
    expected = sum(
        count * np.interp(bins - at, np.arange(-5, 6), KERNEL_ENDS) for count, at in ((3, 2), (3, -2), (1, 7))
    )
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-6)


def test_histogram_shares_a_value_between_its_neighbours():
    halfway, centres = torch.tensor([[10.0]]), torch.tensor([[9.5, 10.5]])
    found = [training.soft_histogram(v, torch.ones_like(v), 0, 20, bins=20) for v in (halfway, centres)]
    torch.testing.assert_close(*found)
    quarter = training.soft_histogram(torch.tensor([[9.75]]), torch.ones(1, 1), 0, 20, bins=20)
    weighted = training.soft_histogram(centres, torch.tensor([[3.0, 1.0]]), 0, 20, bins=20)
    torch.testing.assert_close(quarter, weighted)


def test_histogram_is_close_to_a_kernel_density_estimate():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(60, 4, 3000), rng.normal(120, 6, 2000)])
    centres = np.arange(200) + 0.5
    density = np.exp(-0.5 * (values[:, None] - centres) ** 2).sum(0)
    density = density / density.sum() + 1e-30
    tensor = torch.tensor(values)[None]
    found = training.soft_histogram(tensor, torch.ones_like(tensor), 0, 200)
    # Sharing between two bins adds f (1 - f), 1/6 on average, to the kernel's variance of 1.
    assert np.abs(found[0].numpy() - density).sum() < 0.01
    assert training.entropy(found).item() == pytest.approx(-(density * np.log(density)).sum(), abs=5e-3)


def test_values_outside_the_range_count_in_the_end_bins_and_unweighted_ones_not_at_all():
    values, inside = torch.tensor([[-5.0, 30.0, 10.0]]), torch.tensor([[0.5, 19.5]])
    found = training.soft_histogram(values, torch.tensor([[1.0, 1.0, 0.0]]), 0, 20, bins=20)
    torch.testing.assert_close(found, training.soft_histogram(inside, torch.ones(1, 2), 0, 20, bins=20))


def test_entropy_by_hand():
    found = training.entropy(torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0, 0, 0], [0.25] * 4]))
    torch.testing.assert_close(found, torch.tensor([1.5 * math.log(2), 0.0, math.log(4)]))


def test_entropy_has_the_gradient_of_finite_differences():
    values = torch.rand(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 18 + 1
    values.requires_grad_()
    counted = torch.rand(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def of(v):
        return training.entropy(training.soft_histogram(v, counted, 0, 20, bins=20))

    assert torch.autograd.gradcheck(of, values, eps=1e-6, atol=1e-6)


# --- the loss


@pytest.fixture(scope="module")
def two_tissues():
    """10^3 image: empty, but for a cube of 6^3 whose one half has 2 and whose other has 4."""
    data = torch.zeros(1, 1, 10, 10, 10)
    data[..., 2:5, 2:8, 2:8], data[..., 5:8, 2:8, 2:8] = 2, 4
    return data


def test_foreground_is_brighter_than_the_mean(two_tissues):
    assert torch.equal(training.foreground(two_tissues), (two_tissues > 0).float())


def test_terms_without_a_field(two_tissues):
    terms = training.loss_terms(two_tissues, torch.zeros_like(two_tissues))
    assert terms["roughness"].item() == 0
    assert terms["spread"].item() == pytest.approx(0, abs=1e-6)
    # Foreground mean 3: half of the voxels at log 2/3, half at log 4/3.
    logs = torch.tensor([[2 / 3, 4 / 3]]).log()
    expected = training.entropy(training.soft_histogram(logs, torch.ones(1, 2), *training.LOG_RANGE))
    torch.testing.assert_close(terms["entropy"], expected)
    # Forward differences inside the cube: 5^3 places, of which 5^2 cross from 2/3 to 4/3, the others see none.
    logs = torch.tensor([[math.sqrt(1e-8) + 0.02, math.sqrt((2 / 3) ** 2 + 1e-8) + 0.02]]).log()
    counts = torch.tensor([[100.0, 25.0]])
    expected = training.entropy(training.soft_histogram(logs, counts, *training.LOG_GRADIENT_RANGE))
    torch.testing.assert_close(terms["gradient_entropy"], expected)


def test_terms_of_a_ramp(two_tissues):
    flat = (two_tissues > 0).float()
    ramp = torch.linspace(1, 1.9, 10).reshape(1, 1, 10, 1, 1).expand(1, 1, 10, 10, 10)
    terms = training.loss_terms(flat, ramp.log())
    inside = torch.linspace(1.2, 1.7, 6)
    # The inverse field is scaled so that the output has mean 1: steps of 0.1 / 1.45; a tenth of the extent has 0.9.
    assert terms["roughness"].item() == pytest.approx(0.9 * 0.1 / 1.45, rel=1e-5)
    assert terms["spread"].item() == pytest.approx((inside / 1.45).std(correction=0).item(), rel=1e-4)


def test_the_right_field_has_the_lowest_loss(two_tissues):
    ramp = torch.linspace(-0.2, 0.2, 10).reshape(1, 1, 10, 1, 1).expand(1, 1, 10, 10, 10)
    smooth = ramp.transpose(2, 3)
    acquired = two_tissues * smooth.exp()
    losses = [training.total(training.loss_terms(acquired, s * smooth)).item() for s in (-2, -1, 0, 1)]
    assert losses[1] == min(losses)


def test_scales_have_no_effect_on_the_loss(two_tissues):
    generator = torch.Generator().manual_seed(0)
    acquired = two_tissues * (1 + 0.1 * torch.rand(two_tissues.shape, generator=generator))
    log_inverse = 0.1 * torch.randn(two_tissues.shape, generator=generator)
    one, other = training.loss_terms(acquired, log_inverse), training.loss_terms(700 * acquired, log_inverse + 3)
    for name in training.TERMS:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)


def test_terms_have_the_papers_weights():
    terms = {name: torch.tensor([1.0, 3.0]) * 10**i for i, name in enumerate(training.TERMS)}
    assert list(terms) == ["entropy", "gradient_entropy", "roughness", "spread"]
    assert training.total(terms).item() == 2 * 2 + 20 + 200 + 2000


# --- the network


def test_an_untrained_network_gives_a_field_of_one():
    network = UBC()
    x = torch.rand(2, 1, 100, 100, 100)
    assert network.encoder(x).shape == (2, 128, 7, 7, 7)
    assert torch.equal(network.log_lattice(x), torch.zeros(2, 1, 7, 7, 7))
    assert torch.equal(network(x), torch.zeros_like(x))


def test_the_network_and_the_field_algebra_mean_the_same_spline():
    network = UBC(size=52)
    torch.nn.init.normal_(network.head.weight)
    x = torch.rand(1, 1, 52, 52, 52)
    with torch.no_grad():
        lattice, field = network.log_lattice(x)[0, 0].numpy(), network(x)[0, 0].numpy()
    np.testing.assert_allclose(field, LogBiasSpline.spanning(lattice, (52,) * 3).on_grid((52,) * 3), atol=1e-5)


def test_filters_are_the_papers():
    sizes = [tuple(m.weight.shape) for m in UBC().encoder if isinstance(m, torch.nn.Conv3d)]
    assert sizes == [(16, 1, 3, 3, 3), (32, 16, 3, 3, 3), (64, 32, 3, 3, 3), (128, 64, 3, 3, 3)]


# --- training


def folded_labels(n: int = 52) -> torch.Tensor:
    """A ball in which white matter, cortex and CSF fold around each other everywhere, as no concentric shells do."""
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n)] * 3, indexing="ij")
    wave = torch.sin(9 * x) + torch.sin(8 * y + 1) + torch.sin(9 * z + 2)
    labels = torch.where(wave < 0, 2, torch.where(wave < 1.2, 3, 4))
    return torch.where(x**2 + y**2 + z**2 < 0.9, labels, 0).to(torch.int16)


def small_batch(seed=0, batch=2):
    sampler = HeadSampler(
        contrasts=("T1w",),
        field_of_view=(1, 1.1),
        stripped=0,
        field_sd=(0.25, 0.25),
        field_spans=(1, 1),
        noise=(0, 0.01),
    )
    return training.draw([folded_labels()], sampler, batch, torch.Generator().manual_seed(seed), size=52)


def test_batches_have_mean_one_and_flip_the_truth_along():
    generator = torch.Generator().manual_seed(4)
    images, heads = training.draw([make_labels()], HeadSampler(noise=(0, 0)), 3, generator, size=40)
    assert images.shape == (3, 1, 40, 40, 40)
    torch.testing.assert_close(images.mean((1, 2, 3, 4)), torch.ones(3))
    for picture, head in zip(images[:, 0], heads, strict=True):
        expected = head.clean * head.log_bias.exp()
        torch.testing.assert_close(picture, expected / expected.mean(), rtol=1e-4, atol=1e-6)


def test_one_step_lowers_the_loss():
    torch.manual_seed(0)
    network, (images, _) = UBC(size=52), small_batch()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    first, _ = training.train_step(network, optimizer, images)
    second, _ = training.train_step(network, optimizer, images)
    assert second["loss"] < first["loss"]


def test_a_tiny_problem_is_learnt():
    torch.manual_seed(0)
    network, (images, heads) = UBC(size=52), small_batch()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(40):
        _, log_inverse = training.train_step(network, optimizer, images)
    for head, found in zip(heads, log_inverse[:, 0], strict=True):
        truth, brain = head.log_bias.numpy(), head.brain.numpy()
        before = residual_cov(np.ones_like(truth), np.exp(truth), brain)
        assert residual_cov(np.exp(-found.numpy()), np.exp(truth), brain) < 0.25 * before
        assert 0.8 < response_slope(-found.numpy(), truth, brain) < 1.2


@pytest.fixture(scope="module")
def label_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    for name in "abc":
        image.save(nib.Nifti1Image(make_labels(24).numpy(), np.diag([8.0, 8, 8, 1])), folder / f"{name}.nii.gz")
    return folder


def config_for(label_folder, out, **changes):
    values = {"steps": 4, "batch": 1, "held_out": 1, "checkpoint_every": 2, "log_every": 1}
    return training.UBCTraining(data=str(label_folder), out=str(out), **{**values, **changes})


def test_training_goes_on_after_a_kill_to_the_same_weights(label_folder, tmp_path, monkeypatch):
    whole = training.train(config_for(label_folder, tmp_path / "whole"))
    step = training.train_step
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(training, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        training.train(config_for(label_folder, tmp_path / "killed"))
    assert not (tmp_path / "killed" / "ubc.safetensors").exists()
    assert training.train(config_for(label_folder, tmp_path / "killed"))["sha256"] == whole["sha256"]
    assert len(calls) == 4 + 2  # steps 3 and 4 again, from the checkpoint of step 2
    logs = [(tmp_path / run / "log.tsv").read_text().splitlines() for run in ("whole", "killed")]
    rows = [[{**r, "seconds": ""} for r in csv.DictReader(log, delimiter="\t")] for log in logs]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == ["1", "2", "3", "4"]
    assert whole["training_data"]["trained_on"] == ["a.nii.gz", "b.nii.gz"]
    assert whole["training_data"]["held_out"] == ["c.nii.gz"]
    assert json.loads((tmp_path / "whole" / "ubc.json").read_text())["sha256"] == whole["sha256"]


def test_training_refuses_what_it_cannot_do(label_folder, tmp_path):
    with pytest.raises(InvalidParameterError, match="0 files"):
        training.train(config_for(tmp_path, tmp_path / "out"))
    with pytest.raises(InvalidParameterError, match="held out"):
        training.train(config_for(label_folder, tmp_path / "out", held_out=3))
    for bad in ({"steps": 0}, {"learning_rate": 0.0}, {"minutes": -1.0}, {"held_out": -1}):
        with pytest.raises(InvalidParameterError, match=next(iter(bad))):
            config_for(label_folder, tmp_path, **bad)


def test_a_run_keeps_its_settings_and_its_time_bound(label_folder, tmp_path, capsys):
    arguments = ["--data", str(label_folder), "--out", str(tmp_path), "--batch", "1", "--held-out", "1"]
    training.main([*arguments, "--minutes", "1e-6", "--steps", "50"])
    assert capsys.readouterr().out.startswith("1 steps")
    with pytest.raises(InvalidParameterError, match="settings it began with"):
        training.train(config_for(label_folder, tmp_path, steps=50, learning_rate=0.5))


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
    found = corrector.estimate(scan_of(phantom_100.acquired))
    np.testing.assert_allclose(found.log_bias.on_grid((100,) * 3), math.log(2), rtol=1e-5)
    assert found.record["weights_sha256"] == weights.sha256_of(tmp_path / "half.safetensors")


def test_weights_that_change_on_disk_are_read_again(phantom_100, tmp_path):
    file = tmp_path / "w.safetensors"
    corrector = get_corrector("ubc").from_options(weights_file=str(file))
    for value in (0.5, 0.25):
        network = UBC()
        torch.nn.init.constant_(network.head.bias, value)
        weights.save(network.state_dict(), {}, file)
        found = corrector.estimate(scan_of(phantom_100.acquired)).log_bias.control_points
        np.testing.assert_allclose(found, -value, rtol=1e-6)


def test_the_shipped_weights_respond_to_a_field_and_reduce_it(phantom_100):
    corrector, p = get_corrector("ubc").from_options(), phantom_100
    found = corrector.estimate(scan_of(p.acquired)).log_bias.on_grid((100,) * 3)
    before = residual_cov(np.ones_like(p.bias), p.bias, p.brain)
    assert residual_cov(np.exp(found), p.bias, p.brain) < 0.7 * before
    log_k = np.broadcast_to(np.linspace(-0.2, 0.2, 100)[:, None, None], (100,) * 3)
    with_k = corrector.estimate(scan_of(inject_bias(p.acquired, log_k))).log_bias.on_grid((100,) * 3)
    assert 0.4 < response_slope(with_k - found, log_k, p.brain) < 1.3


def test_the_unit_of_the_image_does_not_matter(phantom_100):
    corrector = get_corrector("ubc").from_options()
    found = [corrector.estimate(scan_of(phantom_100.acquired * s)).log_bias.control_points for s in (1, 1e-4, 1e4)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    np.testing.assert_allclose(found[2], found[0], atol=1e-4)


def test_a_mask_does_not_change_the_estimate(phantom_100):
    corrector, p = get_corrector("ubc").from_options(), phantom_100
    found = [corrector.estimate(scan_of(p.acquired, mask)).log_bias.control_points for mask in (None, p.brain)]
    assert np.array_equal(*found)


def test_the_estimate_does_not_depend_on_threads_or_repetition(phantom_100):
    corrector = get_corrector("ubc").from_options()
    found = []
    for n in (1, 2, 1):
        torch.set_num_threads(n)
        found.append(corrector.estimate(scan_of(phantom_100.acquired), seed=n).log_bias.control_points)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[0], found[1])


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
    assert corrector.parameters() == {"weights_file": None}
    assert dataclasses.is_dataclass(corrector)
