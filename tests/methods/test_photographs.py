"""getnet and implicit: gain fields, losses by hand, the networks' shapes, photographs."""

import math

import pytest
import torch

from biascorr_pydra.methods.photographs import losses as losses
from biascorr_pydra.methods.photographs.networks import GetNet, ImplicitNet, cosines, log_cells
from biascorr_pydra.methods.photographs.training import sample_pairs
from biascorr_pydra.simulation.gain_fields import random_field_gain, spline_gain

METHODS = {"getnet": GetNet, "implicit": ImplicitNet}
GENERATORS = {"getnet": spline_gain, "implicit": random_field_gain}


pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("make", "smallest", "largest"), [(spline_gain, 0.03, 0.3), (random_field_gain, 0.05, 0.25)], ids=METHODS
)
def test_gain_fields_have_the_papers_range_around_one(make, smallest, largest):
    gain, _ = make(400, (64, 16), generator())
    low, high = gain.amin((1, 2, 3)), gain.amax((1, 2, 3))
    torch.testing.assert_close(low + high, torch.full((400,), 2.0))
    half = (high - low) / 2
    assert smallest - 1e-5 <= half.min() < smallest + 0.01
    assert largest - 0.01 < half.max() <= largest + 1e-5
    assert half.mean().item() == pytest.approx((smallest + largest) / 2, abs=0.01)
    assert gain.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("make", GENERATORS.values(), ids=METHODS)
def test_gain_fields_are_smooth_seeded_and_the_same_at_every_resolution(make):
    fine, coarse = make(50, (256, 16), generator(3))
    torch.testing.assert_close(make(50, (256, 16), generator(3))[0], fine)
    assert not torch.equal(make(50, (256, 16), generator(4))[0], fine)
    # Over a cell of 16 samples a field is nearly linear: its mean there is its value in the middle.
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(fine, 16), coarse, atol=0.006, rtol=0)
    step = fine.diff(dim=2).abs().amax((1, 2, 3)) / (fine.amax((1, 2, 3)) - fine.amin((1, 2, 3)))
    assert step.max() < 0.03


def test_random_fields_have_a_gaussian_covariance_of_the_stated_length():
    # One length for all: 25.6 samples of the coarse grid, 10 samples apart, is 252 of 256 samples.
    gain, _ = random_field_gain(3000, (26, 16), generator(), inhomogeneity=(0.3, 0.3))
    along = gain[:, 0, 13].double()
    field = along - along.mean()
    # Lengths between half and twice the slice: correlation of neighbours nearly 1, falling with distance.
    correlation = [(field[:, 13] * field[:, 13 + d]).mean() / (field[:, 13] ** 2).mean() for d in (1, 6, 12)]
    assert correlation[0] > 0.95
    assert correlation[0] > correlation[1] > correlation[2]


def field(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


ONES = field(1, 1, 1, 1)


def test_mae_by_hand():
    known, estimated = field(1, 1.2, 0.8, 1), field(2, 2, 2, 2)
    without = field(2, 2, 2, 1)
    # Quotients 1, 1, 1, 2: errors 0, .2, .2, 1.
    assert losses.implicit_mae(known, estimated.log(), without.log(), ONES).item() == pytest.approx(1.4 / 4)
    inside = field(1, 1, 0, 0.5)
    assert losses.implicit_mae(known, estimated.log(), without.log(), inside).item() == pytest.approx(0.7 / 2.5)


def test_mse_by_hand_is_free_of_scale():
    known, ratio = field(0.5, 1.5, 1, 1), field(1, 1, 1, 3)
    # Divided by its mean the quotient is 2/3, 2/3, 2/3, 2.
    expected = ((0.5 - 2 / 3) ** 2 + (1.5 - 2 / 3) ** 2 + (1 - 2 / 3) ** 2 + 1) / 4
    for scale in (0, 3.0):
        loss = losses.implicit_mse(known * 7, ratio.log() + scale, torch.zeros_like(ratio), ONES)
        assert loss.item() == pytest.approx(expected)
    assert losses.implicit_mse(known, known.log(), torch.zeros_like(known), ONES).item() == pytest.approx(0)


def test_idempotence_and_economy_by_hand():
    again = field(1, 1, 1, 5).log()
    assert losses.idempotence(again, ONES).item() == pytest.approx((3 * 0.25 + 2.25) / 4)
    assert losses.idempotence(again + 2, field(1, 1, 1, 0)).item() == pytest.approx(0, abs=1e-12)
    assert losses.economy(field(0, 0, 0, 4), ONES).item() == pytest.approx(1.5)
    assert losses.economy(field(5, 5, 5, 9), field(1, 1, 1, 0)).item() == 0


def test_a_low_pass_of_log_intensity_minimizes_the_papers_loss_and_not_economy():
    """Why there is economy: an untrained network, a homomorphic filter, already follows every field."""
    photographs = [torch.randint(60, 255, (300, 300), generator=generator(2)).to(torch.uint8)]
    photographs[0][:, 150:] //= 4
    slices, with_gain, gain, inside = sample_pairs(
        photographs, spline_gain(4, (256, 16), generator()), generator(), plain=True
    )
    network = GetNet().eval()
    with torch.no_grad():
        without, estimated = network(slices), network(with_gain)
    known = losses.economy(gain.log(), inside)
    assert (losses.implicit_mae(gain, estimated, without, inside) < 0.25 * known).all()
    assert (losses.economy(without, inside) > 0.3).all()


def test_log_cells_by_hand():
    image = torch.zeros(1, 1, 16, 32)
    image[..., :16] = 0.5
    sums, weights_ = log_cells(image)
    full = 0.25 / (0.25 + 0.08**2)
    torch.testing.assert_close(weights_, torch.tensor([[[[full, 1e-6 / (1e-6 + 0.08**2)]]]]))
    assert sums[0, 0, 0, 0].item() == pytest.approx(full * math.log(0.5), rel=1e-5)


def test_cosines_are_orthonormal():
    basis = cosines(16, 4).double()
    torch.testing.assert_close(basis.T @ basis / 16, torch.eye(4, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_an_untrained_network_is_its_shortcut_and_follows_a_field_of_its_own_shape(name):
    network = METHODS[name]().eval()
    basis = cosines(256, 3)
    log_gain = 0.2 * (basis[:, 1:2] @ basis[:, 2:3].T)[None, None]
    with torch.no_grad():
        flat = network(0.5 * torch.ones(1, 1, 256, 256))
        response = network(0.5 * log_gain.exp()) - flat
    cells = torch.nn.functional.avg_pool2d(log_gain, 16)
    assert flat.std() < 1e-4
    slope = (response * cells).sum() / (cells**2).sum()
    assert slope.item() == pytest.approx(1, abs=0.06)


def test_networks_have_the_papers_shape():
    assert ImplicitNet().head.out_features == 16
    assert 200_000 < sum(p.numel() for p in ImplicitNet().parameters()) < 300_000
    assert 200_000 < sum(p.numel() for p in GetNet().parameters()) < 300_000
    with torch.no_grad():
        network = ImplicitNet().eval()
        torch.nn.init.constant_(network.head.bias, 9.0)
        log_gain = network(torch.rand(1, 1, 256, 256))
    assert log_gain.shape == (1, 1, 16, 16)
    assert log_gain.abs().max().item() == pytest.approx(math.log(2))
