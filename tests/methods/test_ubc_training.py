"""UBC's training: on simulated heads and on BIDS images, step by step and as a whole."""

import json
from contextlib import nullcontext

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import make_labels

from biascorr_pydra.errors import BIDSError, InvalidImageError, InvalidParameterError
from biascorr_pydra.images import nifti
from biascorr_pydra.methods.ubc import entropy
from biascorr_pydra.methods.ubc.networks import UBC
from biascorr_pydra.methods.ubc.training import UBCTraining
from biascorr_pydra.methods.ubc.training_data import Heads, find_files, open_scans
from biascorr_pydra.metrics import residual_cov, response_slope
from biascorr_pydra.simulation.heads import HeadSampler
from biascorr_pydra.training import run

SMALL = 52  # samples per axis, that is 4 places


pytestmark = pytest.mark.usefixtures("one_thread")


def folded_labels(n: int = SMALL) -> torch.Tensor:
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
    return Heads([folded_labels()], sampler, SMALL).draw(batch, torch.Generator().manual_seed(seed))


def config(data, out, **changes):
    values = {"steps": 4, "batch": 1, "held_out": "1", "checkpoint_every": 2, "log_every": 1, "size": 32, "lattice": 4}
    return UBCTraining(data=str(data), out=str(out), **{**values, **changes})


def step(configuration, network, optimizer, batch):
    return configuration.update(network, [optimizer], batch, nullcontext)


# --- simulated heads


def test_heads_have_mean_one_and_flip_the_truth_along():
    heads = Heads([make_labels()], HeadSampler(contrasts=("T1w",), noise=(0, 0), stripped=1), 40)
    batch = heads.draw(3, torch.Generator().manual_seed(4))
    assert batch["image"].shape == batch["log_bias"].shape == batch["brain"].shape == (3, 1, 40, 40, 40)
    torch.testing.assert_close(batch["image"].mean((1, 2, 3, 4)), torch.ones(3))
    # Without extra-cerebral tissue the image is empty where there is no brain, but for the blur at its border.
    clean = batch["image"] / batch["log_bias"].exp()
    for picture, brain in zip(clean, batch["brain"], strict=True):
        assert picture[brain].sum() > 0.9 * picture.sum()
        # White matter has one intensity: with the field flipped otherwise, its values would spread.
        values = picture[brain]
        assert values[values > values.median()].std() < 0.25 * values.mean()


def test_one_step_lowers_the_loss(tmp_path):
    torch.manual_seed(0)
    network, batch = UBC(SMALL, 4), small_batch()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    first, second = (step(config(tmp_path, tmp_path), network, optimizer, batch) for _ in range(2))
    assert second["loss"] < first["loss"]


def test_a_tiny_problem_is_learnt(tmp_path):
    torch.manual_seed(0)
    network, batch = UBC(SMALL, 4), small_batch()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    configuration = config(tmp_path, tmp_path, still_after=5, warm_up=20)
    for _ in range(60):
        row = step(configuration, network, optimizer, batch)
    with torch.inference_mode():
        estimates = -network.eval()(batch["image"])
    assert row["cov_after"] < 0.3 * row["cov_before"]
    for truth, brain, log_bias in zip(batch["log_bias"], batch["brain"], estimates, strict=True):
        truth, brain, log_bias = (t[0].numpy() for t in (truth, brain, log_bias))
        before = residual_cov(np.ones_like(truth), np.exp(truth), brain)
        assert residual_cov(np.exp(log_bias), np.exp(truth), brain) < 0.3 * before
        assert 0.75 < response_slope(log_bias, truth, brain) < 1.25


def test_the_roughness_gains_its_weight_and_the_statistics_stand_still(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network, batch = UBC(SMALL, 4), small_batch(batch=1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    total, shares = entropy.total, []

    def seen(terms):
        shares.append(terms["roughness"].item())
        return total(terms)

    monkeypatch.setattr(entropy, "total", seen)
    configuration, statistics = config(tmp_path, tmp_path, still_after=2, warm_up=4), []
    for _ in range(6):
        row = step(configuration, network, optimizer, batch)
        statistics.append(network.encoder[2].running_mean.clone())
        shares[-2:] = [shares[-2] / row["roughness"]] if row["roughness"] else [None]
    assert shares[0] is None  # a new network has no field at all
    assert shares[1:] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert not torch.equal(statistics[0], statistics[1])
    assert torch.equal(statistics[1], statistics[-1])


@pytest.fixture(scope="module")
def label_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    for name in "abc":
        nifti.save(nib.Nifti1Image(make_labels(24).numpy(), np.diag([8.0, 8, 8, 1])), folder / f"{name}.nii.gz")
    return folder


def test_training_goes_on_after_a_kill_to_the_same_weights(label_folder, tmp_path, monkeypatch):
    settings = {"held_out": "c", "still_after": 1, "warm_up": 3}  # both have begun where the run goes on
    whole = run.run(config(label_folder, tmp_path / "whole", **settings))
    update, calls = UBCTraining.update, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 4:
            raise SystemExit
        return update(*args)

    monkeypatch.setattr(UBCTraining, "update", killed)
    with pytest.raises(SystemExit):
        run.run(config(label_folder, tmp_path / "killed", **settings))
    assert run.run(config(label_folder, tmp_path / "killed", **settings))["sha256"] == whole["sha256"]
    assert len(calls) == 4 + 2  # steps 3 and 4 again, from the checkpoint of step 2
    assert whole["training_data"]["trained_on"] == ["a.nii.gz", "b.nii.gz"]
    assert whole["training_data"]["held_out"] == ["c.nii.gz"]
    assert whole["training"]["lattice"] == 4
    assert set(whole["scores"]["held_out"]) == {"what", "heads", "T1w", "T2w", "FLAIR"}
    json.dumps(whole)


# --- images of a BIDS data set


def head(seed: int, shape=(20, 24, 22)) -> nib.Nifti1Image:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    ball = (grid**2).sum(0) < 0.8
    data = ball * (100 + 60 * (np.sin(7 * grid).sum(0) > 0)) * np.exp(0.2 * grid[0]) + rng.normal(0, 2, shape) ** 2
    return nib.Nifti1Image(data.astype(np.float32), np.diag([8.0, 8, 8, 1]))


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    root = tmp_path_factory.mktemp("bids")
    (root / "dataset_description.json").write_text('{"Name": "heads", "BIDSVersion": "1.11.0"}')
    for i, subject in enumerate(("01", "02", "03")):
        folder = root / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        for suffix in ("T1w", "T2w"):
            nifti.save(head(i), folder / f"sub-{subject}_{suffix}.nii.gz")
    (root / "sub-02" / "anat" / "sub-02_T2w.nii.gz").write_bytes(b"not gzip")
    return root


def test_files_of_a_bids_data_set_are_chosen_by_suffix_and_split_by_subject(bids, tmp_path):
    assert [f.name for f in find_files(bids, ["T2w"])] == [f"sub-0{i}_T2w.nii.gz" for i in (1, 2, 3)]
    split = config(bids, tmp_path, held_out="sub-03").split()
    assert [f.name for f in split.train] == [f"sub-0{i}_{s}.nii.gz" for i in (1, 2) for s in ("T1w", "T2w")]
    assert [f.name for f in split.held_out] == ["sub-03_T1w.nii.gz", "sub-03_T2w.nii.gz"]
    with pytest.raises(BIDSError, match="FLAIR"):
        config(bids, tmp_path, suffixes="FLAIR").split()


def test_images_are_on_the_networks_grid_with_mean_one_and_flipped(bids):
    file = bids / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    scans = open_scans([file], bids, 32)
    assert scans.images.dtype == torch.float16
    assert scans.images.float().mean().item() == pytest.approx(1, abs=1e-3)
    drawn = scans.draw(16, torch.Generator().manual_seed(0))["image"]
    mirrored = [scans.images[0].float().flip([a + 1 for a in range(3) if bits >> a & 1]) for bits in range(8)]
    which = [[i for i, m in enumerate(mirrored) if torch.equal(m, d)] for d in drawn]
    assert all(len(axes) == 1 for axes in which)
    assert len({axes[0] for axes in which}) > 4


def test_training_on_bids_images_records_what_was_used(bids, tmp_path):
    with pytest.warns(UserWarning, match="sub-02_T2w"):
        card = run.run(config(bids, tmp_path, held_out="sub-03", steps=4, learning_rate=0.03))
    data = card["training_data"]
    assert data["used"] == 3
    assert list(data["left_out"]) == ["sub-02/anat/sub-02_T2w.nii.gz"]
    assert data["held_out"] == [f"sub-03/anat/sub-03_{s}.nii.gz" for s in ("T1w", "T2w")]
    scores = card["scores"]["held_out"]
    assert scores["images"] == 2
    scans = open_scans([bids / name for name in data["held_out"]], bids, 32).images.float()
    without = entropy.total(entropy.loss_terms(scans, torch.zeros_like(scans))).item()
    assert scores["loss_before"] == pytest.approx(without, abs=1e-3)
    assert scores["loss"] != scores["loss_before"]


def test_a_data_set_without_a_usable_image_is_refused(bids, tmp_path):
    file = bids / "sub-02" / "anat" / "sub-02_T2w.nii.gz"
    with pytest.warns(UserWarning, match="left out"), pytest.raises(InvalidImageError, match="1 cannot"):
        open_scans([file], bids, 32)
    with pytest.raises(InvalidParameterError, match="neither sub-"):
        config(tmp_path, tmp_path).split()


@pytest.mark.parametrize("bad", [{"lattice": 2}, {"lattice": 12}, {"size": 8}, {"warm_up": 0}, {"still_after": 0}])
def test_settings_out_of_range_are_refused(tmp_path, bad):
    with pytest.raises(InvalidParameterError, match=next(iter(bad))):
        config(tmp_path, tmp_path, **bad)


@pytest.mark.parametrize(("bad", "words"), [({"contrasts": "PDw"}, "contrast"), ({"stripped": 2.0}, "stripped")])
def test_heads_that_cannot_be_simulated_are_refused_at_once(tmp_path, bad, words):
    with pytest.raises(InvalidParameterError, match=words):
        config(tmp_path, tmp_path, **bad)
