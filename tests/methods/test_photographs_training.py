"""getnet and implicit: photographs read, and trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from biascorr_pydra.errors import InvalidImageError, InvalidParameterError, UnreadableImageError
from biascorr_pydra.methods import get_training
from biascorr_pydra.methods.photographs import losses as losses
from biascorr_pydra.methods.photographs import pictures, training
from biascorr_pydra.methods.photographs.networks import GetNet, ImplicitNet
from biascorr_pydra.simulation.gain_fields import random_field_gain, spline_gain
from biascorr_pydra.training import run

METHODS = {"getnet": GetNet, "implicit": ImplicitNet}
GENERATORS = {"getnet": spline_gain, "implicit": random_field_gain}


pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    loss_values, invented = [], []
    for _ in range(25):
        loss, row = training.loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 1e-3  # from the second step on
        loss_values.append(loss.item())
        invented.append(row["invented"].item())
    assert loss_values[1] < loss_values[0]
    assert loss_values[-1] < 0.6 * loss_values[0]
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
