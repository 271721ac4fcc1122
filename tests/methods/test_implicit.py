"""getnet and implicit as correctors: slices combined into a field, and the shipped weights."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import make_phantom, reorient

from biascorr_pydra import weights
from biascorr_pydra.correction.correct import correct_image
from biascorr_pydra.errors import InvalidImageError, InvalidParameterError
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods import get_corrector, get_training
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.methods.photographs import losses as losses
from biascorr_pydra.methods.photographs import slices
from biascorr_pydra.methods.photographs.networks import GetNet, ImplicitNet, log_cells
from biascorr_pydra.methods.photographs.training import sample_pairs, score_responses
from biascorr_pydra.metrics import response_slope
from biascorr_pydra.simulation.gain_fields import random_field_gain, spline_gain
from biascorr_pydra.simulation.heads import inject_bias, sample_log_bias

METHODS = {"getnet": GetNet, "implicit": ImplicitNet}
GENERATORS = {"getnet": spline_gain, "implicit": random_field_gain}


pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BOX, SHAPE = ((10, 74), (0, 80), (20, 60)), (80, 80, 64)


def stacks_of(points: np.ndarray, rng) -> tuple[list, list]:
    """Slices along three axes of a box: a field's cell means, each slice with an offset of its own; and some unseen."""
    log_bias = LogBiasSpline.spanning(points, SHAPE).on_grid(SHAPE, float)
    stacks, values = [], []
    for axis in range(3):
        places = slices.slice_places(*BOX[axis])
        others = [(BOX[a], SHAPE[a], points.shape[a]) for a in range(3) if a != axis]
        along = slices.bspline_basis(places, points.shape[axis], first=0, last=SHAPE[axis] - 1)
        box = tuple(slice(*BOX[a]) for a in range(3) if a != axis)
        cells = slices.resized(np.moveaxis(log_bias, axis, 0)[places][:, box[0], box[1]], 256, "bilinear")
        cells = slices.resized(cells, 16, "area").astype(float) + rng.normal(0, 1, (len(places), 1, 1))
        counted = rng.uniform(0.2, 1, cells.shape) * (rng.uniform(size=cells.shape) < 0.7)
        across = tuple(slices.cell_basis(*other) for other in others)
        stacks.append(slices.Stack(axis, along, across, counted, np.zeros((len(places), 1, 1))))
        values.append(np.where(counted > 0, cells, 99.0))
    return stacks, values


def test_slices_of_any_scale_give_back_the_field():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.3, (7, 6, 8))  # another number on each axis: none can stand for another
    control_points = slices.combine(*stacks_of(truth, rng), slope=1e-7, roughness=1e-7, ridge=1e-9)
    inside = tuple(slice(*ends) for ends in BOX)
    log_bias, fitted = (LogBiasSpline.spanning(p, SHAPE).on_grid(SHAPE, float)[inside] for p in (truth, control_points))
    difference = fitted - log_bias
    assert log_bias.std() > 0.1
    assert difference.std() < 0.002
    assert np.abs(difference - difference.mean()).max() < 0.02
    assert control_points.mean() == pytest.approx(0, abs=1e-12)


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
    result = correct_image(img, method="getnet", mask=reorient(whole.image(whole.brain), codes), gate=False)
    bias = np.asarray(result.bias.dataobj)
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


@pytest.mark.parametrize("method", METHODS)
def test_the_shipped_weights_answer_to_a_field(method):
    """The published weights of 2022 do not: 0.003."""
    phantom = make_phantom(noise=0.02, strength=0.05, seed=3)
    shape = phantom.acquired.shape
    log_k = LogBiasSpline.spanning(sample_log_bias((2, 2, 2), 0.15, generator(1)).numpy(), shape).on_grid(shape)
    mask = phantom.image(phantom.brain)
    log_biases = [
        np.log(np.asarray(correct_image(phantom.image(data), method=method, mask=mask, gate=False).bias.dataobj))
        for data in (phantom.acquired, inject_bias(phantom.acquired, log_k))
    ]
    assert 0.9 < response_slope(log_biases[1] - log_biases[0], log_k, phantom.brain) < 1.1


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
