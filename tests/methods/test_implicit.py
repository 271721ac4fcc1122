"""getnet and implicit: gain fields, losses by hand, photographs, training, and slices combined into a field."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_phantom, reorient
from PIL import Image

from biascorr_pydra import weights
from biascorr_pydra.correction.correct import correct_image
from biascorr_pydra.errors import InvalidImageError, InvalidParameterError, UnreadableImageError
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods import get_corrector, get_training
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.methods.photographs import losses as losses
from biascorr_pydra.methods.photographs import pictures, slices, training
from biascorr_pydra.methods.photographs.networks import GetNet, ImplicitNet, cosines, log_cells
from biascorr_pydra.methods.photographs.training import sample_pairs, score_responses
from biascorr_pydra.metrics import response_slope
from biascorr_pydra.simulation.gain_fields import random_field_gain, spline_gain
from biascorr_pydra.simulation.heads import inject_bias, sample_log_bias
from biascorr_pydra.training import run

METHODS = {"getnet": GetNet, "implicit": ImplicitNet}
GENERATORS = {"getnet": spline_gain, "implicit": random_field_gain}


pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- gain fields


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


# --- the losses, by hand


def field(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


ONES = field(1, 1, 1, 1)


def test_mae_by_hand():
    known, found = field(1, 1.2, 0.8, 1), field(2, 2, 2, 2)
    without = field(2, 2, 2, 1)
    # Quotients 1, 1, 1, 2: errors 0, .2, .2, 1.
    assert losses.implicit_mae(known, found.log(), without.log(), ONES).item() == pytest.approx(1.4 / 4)
    inside = field(1, 1, 0, 0.5)
    assert losses.implicit_mae(known, found.log(), without.log(), inside).item() == pytest.approx(0.7 / 2.5)


def test_mse_by_hand_is_free_of_scale():
    known, ratio = field(0.5, 1.5, 1, 1), field(1, 1, 1, 3)
    # Divided by its mean the quotient is 2/3, 2/3, 2/3, 2.
    expected = ((0.5 - 2 / 3) ** 2 + (1.5 - 2 / 3) ** 2 + (1 - 2 / 3) ** 2 + 1) / 4
    for scale in (0, 3.0):
        found = losses.implicit_mse(known * 7, ratio.log() + scale, torch.zeros_like(ratio), ONES)
        assert found.item() == pytest.approx(expected)
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
        without, found = network(slices), network(with_gain)
    known = losses.economy(gain.log(), inside)
    assert (losses.implicit_mae(gain, found, without, inside) < 0.25 * known).all()
    assert (losses.economy(without, inside) > 0.3).all()


# --- the networks


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
        found = network(0.5 * log_gain.exp()) - flat
    cells = torch.nn.functional.avg_pool2d(log_gain, 16)
    assert flat.std() < 1e-4
    slope = (found * cells).sum() / (cells**2).sum()
    assert slope.item() == pytest.approx(1, abs=0.06)


def test_networks_have_the_papers_shape():
    assert ImplicitNet().head.out_features == 16
    assert 200_000 < sum(p.numel() for p in ImplicitNet().parameters()) < 300_000
    assert 200_000 < sum(p.numel() for p in GetNet().parameters()) < 300_000
    with torch.no_grad():
        network = ImplicitNet().eval()
        torch.nn.init.constant_(network.head.bias, 9.0)
        found = network(torch.rand(1, 1, 256, 256))
    assert found.shape == (1, 1, 16, 16)
    assert found.abs().max().item() == pytest.approx(math.log(2))


# --- photographs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (260, 300)), ("b.png", (300, 257)), ("c.png", (256, 256))):
        coarse = rng.integers(30, 255, (8, 9)).astype(np.uint8)
        Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_photographs_are_read_as_grey_values(tmp_path):
    colour = np.zeros((256, 258, 3), np.uint8)
    colour[..., 1] = 200
    Image.fromarray(colour).save(tmp_path / "green.png")
    (read,) = pictures.read_photographs(pictures.find_photographs(tmp_path))
    assert read.shape == (256, 258)
    assert (read == round(0.587 * 200)).all()  # ITU-R 601 luma


def test_photographs_that_cannot_serve_are_named(tmp_path):
    with pytest.raises(InvalidParameterError, match="no such folder"):
        pictures.find_photographs(tmp_path / "absent")
    with pytest.raises(InvalidParameterError, match="holds photographs"):
        pictures.find_photographs(tmp_path)
    (tmp_path / "broken.jpg").write_text("this is text")
    with pytest.raises(UnreadableImageError, match=r"broken\.jpg"):
        pictures.read_photographs(pictures.find_photographs(tmp_path))
    Image.new("L", (300, 200)).save(tmp_path / "small.png")
    with pytest.raises(InvalidImageError, match=r"300 x 200[\s\S]*small\.png|small\.png[\s\S]*300 x 200"):
        pictures.read_photographs([tmp_path / "small.png"])


def test_slices_are_seeded_in_range_and_dark_outside(photographs):
    read = pictures.read_photographs(pictures.find_photographs(photographs))
    slices, inside = pictures.draw_slices(read, 30, generator(5))
    again, _ = pictures.draw_slices(read, 30, generator(5))
    assert torch.equal(slices, again)
    assert slices.shape == (30, 1, 256, 256)
    assert slices.min() >= 0
    assert slices.max() <= 1
    assert (slices[inside == 0] == 0).all()
    cut = (inside.mean((1, 2, 3)) < 1).float().mean().item()
    assert 0.4 < cut < 0.95  # about CUT_OUT
    plain, everywhere = pictures.draw_slices(read, 2, generator(5), plain=True)
    assert everywhere.all()
    assert plain.max() > 0.5


# --- training


def config(method, photographs, out, **changes):
    values = {"steps": 4, "batch": 2, "held_out": "1", "checkpoint_every": 2, "log_every": 1}
    return get_training(method)(data=str(photographs), out=str(out), device="cpu", **{**values, **changes})


@pytest.mark.parametrize("method", METHODS)
def test_one_step_lowers_the_loss_and_a_tiny_problem_is_learnt(method, photographs, tmp_path):
    training = config(method, photographs, tmp_path, batch=2, economy=0.5, plain=True)
    torch.manual_seed(0)
    network = training.build().train()
    batch = training.sample(training.open(training.split().train), generator())
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    found, invented = [], []
    for _ in range(25):
        loss, row = training.loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 1e-3  # from the second step on
        found.append(loss.item())
        invented.append(row["invented"].item())
    assert found[1] < found[0]
    assert found[-1] < 0.6 * found[0]
    assert invented[-1] < 0.7 * invented[0]  # the photographs' own shading is learnt away; at first all of it is found


@pytest.mark.parametrize("method", METHODS)
def test_training_goes_on_after_a_kill_to_the_same_weights(method, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SCORED_BATCHES", 1)
    whole = run.run(config(method, photographs, tmp_path / "whole"))
    cls = get_training(method)
    update, calls = cls.update, []

    def killed(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise SystemExit
        return update(self, *args)

    monkeypatch.setattr(cls, "update", killed)
    with pytest.raises(SystemExit):
        run.run(config(method, photographs, tmp_path / "killed"))
    assert run.run(config(method, photographs, tmp_path / "killed"))["sha256"] == whole["sha256"]
    assert set(whole["scores"]["held_out"]) == {"photographs as they are", "as trained on"}
    for key in ("follows", "filled", "deviates", "limits"):
        assert whole[key]


def test_train_and_val_folders_are_the_split(photographs, tmp_path):
    for part, names in (("train", "ab"), ("val", "c")):
        (tmp_path / part).mkdir()
        for name in names:
            (tmp_path / part / f"{name}.png").write_bytes((photographs / f"{name}.png").read_bytes())
    split = config("getnet", tmp_path, tmp_path / "out").split()
    assert split.names(tmp_path) == {"trained_on": ["train/a.png", "train/b.png"], "held_out": ["val/c.png"]}
    assert len(config("getnet", photographs, tmp_path / "out").split().held_out) == 1
    with pytest.raises(InvalidParameterError, match="economy"):
        config("getnet", photographs, tmp_path, economy=-1.0)


# --- slices into a field


BOX, SHAPE = ((10, 74), (0, 80), (20, 60)), (80, 80, 64)


def stacks_of(points: np.ndarray, rng) -> tuple[list, list]:
    """Slices along three axes of a box: a field's cell means, each slice with an offset of its own; and some unseen."""
    log_bias = LogBiasSpline.spanning(points, SHAPE).on_grid(SHAPE, float)
    stacks, values = [], []
    for axis in range(3):
        places = slices._places(*BOX[axis])
        others = [(BOX[a], SHAPE[a], points.shape[a]) for a in range(3) if a != axis]
        along = slices.bspline_basis(places, points.shape[axis], first=0, last=SHAPE[axis] - 1)
        box = tuple(slice(*BOX[a]) for a in range(3) if a != axis)
        found = slices._resized(np.moveaxis(log_bias, axis, 0)[places][:, box[0], box[1]], 256, "bilinear")
        found = slices._resized(found, 16, "area").astype(float) + rng.normal(0, 1, (len(places), 1, 1))
        counted = rng.uniform(0.2, 1, found.shape) * (rng.uniform(size=found.shape) < 0.7)
        across = tuple(slices._cell_basis(*other) for other in others)
        stacks.append(slices.Stack(axis, along, across, counted, np.zeros((len(places), 1, 1))))
        values.append(np.where(counted > 0, found, 99.0))
    return stacks, values


def test_slices_of_any_scale_give_back_the_field():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.3, (7, 6, 8))  # another number on each axis: none can stand for another
    found = slices.combine(*stacks_of(truth, rng), slope=1e-7, roughness=1e-7, ridge=1e-9)
    inside = tuple(slice(*ends) for ends in BOX)
    log_bias, fitted = (LogBiasSpline.spanning(p, SHAPE).on_grid(SHAPE, float)[inside] for p in (truth, found))
    difference = fitted - log_bias
    assert log_bias.std() > 0.1
    assert difference.std() < 0.002
    assert np.abs(difference - difference.mean()).max() < 0.02
    assert found.mean() == pytest.approx(0, abs=1e-12)


class Told(torch.nn.Module):
    """A network that needs no training: the field is the logarithm of an image without anatomy."""

    def forward(self, image):
        sums, weights_ = log_cells(image)
        return sums / weights_.clamp(min=1e-6)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "oblique"])
def test_a_field_is_recovered_through_correct_image_in_every_orientation(codes, monkeypatch):
    monkeypatch.setattr("biascorr_pydra.methods.photographs.slices.loaded", lambda *_: (Told(), "0" * 64))
    whole = make_phantom(noise=0)
    img = reorient(whole.image(500 * whole.bias), codes)
    found = correct_image(img, method="getnet", mask=reorient(whole.image(whole.brain), codes), gate=False)
    bias = np.asarray(found.bias.dataobj)
    truth = np.asarray(reorient(whole.image(whole.bias), codes).dataobj)
    brain = np.asarray(reorient(whole.image(whole.brain), codes).dataobj) > 0
    assert 0.98 < response_slope(np.log(bias), np.log(truth), brain) < 1.02
    assert (bias / truth)[brain].std() < 0.1 * truth[brain].std()
    assert bias.min() > 0.3  # what lies outside the mask is not carried away
    assert bias.max() < 3


def test_the_image_has_positive_voxels():
    scan = Scan(np.zeros(slices.GRID, np.float32), np.ones(slices.GRID, bool), None, (1.0, 1.0, 1.0))
    with pytest.raises(InvalidImageError, match="positive"):
        slices.estimate_by_slices(Told(), [scan], device="cpu")


# --- the shipped weights


@pytest.mark.parametrize("method", METHODS)
def test_the_shipped_weights_answer_to_a_field(method):
    """The published weights of 2022 do not: 0.003."""
    phantom = make_phantom(noise=0.02, strength=0.05, seed=3)
    shape = phantom.acquired.shape
    log_k = LogBiasSpline.spanning(sample_log_bias((2, 2, 2), 0.15, generator(1)).numpy(), shape).on_grid(shape)
    mask = phantom.image(phantom.brain)
    found = [
        np.log(np.asarray(correct_image(phantom.image(data), method=method, mask=mask, gate=False).bias.dataobj))
        for data in (phantom.acquired, inject_bias(phantom.acquired, log_k))
    ]
    assert 0.9 < response_slope(found[1] - found[0], log_k, phantom.brain) < 1.1


@pytest.mark.parametrize("method", METHODS)
def test_several_scans_at_once_are_what_each_is_alone(method):
    corrector = get_corrector(method).from_options(passes=1)
    scans = []
    for seed in (0, 1):
        data = make_phantom((64, 60, 56), seed=seed).acquired
        scans.append(Scan(data, np.ones(data.shape, bool), None, (3.0,) * 3))
    together, alone = corrector.estimate_batch(scans), [corrector.estimate(scan) for scan in scans]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.log_bias.control_points, other.log_bias.control_points, atol=1e-3)
        assert one.record["weights_sha256"] == weights.sha256_of(method)
    assert np.abs(together[0].log_bias.control_points - together[1].log_bias.control_points).max() > 0.01


def test_passes_are_bounded():
    for bad in (0, 11, 1.5):
        with pytest.raises(InvalidParameterError, match="passes"):
            get_corrector("getnet").from_options(passes=bad)


@pytest.mark.parametrize("method", METHODS)
def test_the_shipped_cards_say_what_was_done(method):
    card = weights.card_of(method)
    assert "non-commercial" in card["training_data"]["licence"]
    scores = card["scores"]["held-out photographs, two passes"]  # as the corrector makes them by default
    assert len(scores) == 2
    assert all(0.9 < score["response_slope"] < 1.1 for score in scores.values())
    assert all(score["invented"] < score["invented_by_low_pass"] for score in card["scores"]["held_out"].values())


def test_scores_of_a_network_that_is_right():
    class Right(torch.nn.Module):
        shortcut = staticmethod(lambda image: log_cells(image)[0] / log_cells(image)[1])

        def forward(self, image):
            return self.shortcut(image) * 0.5

    photographs = [torch.full((256, 256), 200, dtype=torch.uint8)]
    batches = [sample_pairs(photographs, spline_gain(2, (256, 16), generator()), generator(), plain=True)]
    scores = score_responses(Right(), batches)
    assert scores["response_slope"] == pytest.approx(0.5, abs=0.02)
    assert scores["invented"] == pytest.approx(0, abs=1e-4)
    assert dataclasses.is_dataclass(get_training("getnet"))
