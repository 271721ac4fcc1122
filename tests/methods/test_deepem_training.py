"""deepem: the training of its two networks, on label maps made by hand."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from biascorr_pydra import weights
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.methods.deepem.networks import MIXED, TissueNetworks
from biascorr_pydra.methods.deepem.training import DeepEMTraining
from biascorr_pydra.methods.deepem.training_data import PURE, ClassedHeads, classes_of, cut_view, pure_of, thick_slices
from biascorr_pydra.simulation.heads import HeadSampler

EXAMPLES = Path(__file__).parents[2] / "bids_examples"


pytestmark = pytest.mark.usefixtures("one_thread")


def heads(stripped=0.0):
    """Label maps that could not be simpler: a cube of gray matter around white, a skull around that."""
    labels = torch.zeros(40, 40, 40, dtype=torch.int16)
    labels[4:36, 4:36, 4:36] = 502
    labels[8:32, 8:32, 8:32] = 3
    labels[14:26, 14:26, 14:26] = 2
    return ClassedHeads([labels], HeadSampler(stripped=stripped))


def test_classes_of_labels():
    labels = torch.tensor([0, 2, 41, 3, 4, 16, 17, 10, 11, 30, 502, 530])
    assert classes_of(labels).tolist() == [0, 1, 1, 3, 7, 2, 4, 5, 6, 8, 0, 0]


def test_a_drawn_head_and_its_classes_belong_together():
    data, generator = heads(), torch.Generator().manual_seed(3)
    for _ in range(4):
        head = data.draw(generator)
        assert {tuple(x.shape) for x in head.values()} == {(96, 96, 96)}
        assert set(head["classes"].unique().tolist()) <= {0, 1, 3}
        bare = head["image"] / head["log_bias"].exp()
        inside = [bare[head["classes"] == k] for k in (1, 3)]
        assert all(values.std() < 0.35 * values.mean() for values in inside)  # one tissue each
    assert data.small_field(generator).std() < 0.1


def test_what_is_pure_by_hand():
    classes = torch.tensor([0, 1, 1, 3, 3])
    own = torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0])
    factor = torch.exp(torch.tensor([0.0, PURE + 0.01, PURE - 0.01, -PURE - 0.01, 0.0]))
    assert pure_of(classes, own * factor, own).tolist() == [0, MIXED, 1, MIXED, 3]


def test_voxels_of_blurred_heads_that_are_called_pure_have_their_tissue_s_intensity():
    data = replace(heads(), sampler=HeadSampler(stripped=1, noise=(0, 0), field_sd=(0, 0), contrasts=("T1w",)))
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        head = data.draw(generator)
        spread = {name: head["image"][head[name] == 3].std().item() for name in ("pure", "classes")}
        assert (head["pure"] == MIXED).any() and spread["pure"] < 0.7 * spread["classes"]
        assert ((head["pure"] == head["classes"]) | (head["pure"] == MIXED)).all()


def test_thick_slices_and_a_cut_view_by_hand():
    image = torch.arange(4.0).view(4, 1, 1).expand(4, 2, 2)
    assert thick_slices(image, 0)[:, 0, 0].tolist() == [0.5, 1.0, 2.0, 2.5]
    whole, classes = torch.ones(96, 96, 96), torch.ones(96, 96, 96, dtype=torch.int64)
    cut, cut_classes = cut_view((whole, classes), torch.Generator().manual_seed(0))
    assert (cut == cut_classes).all() and 5 * 96**2 <= (cut == 0).sum() < 25 * 96**2
    assert whole.all() and classes.all()  # not in place


def test_stages_train_one_network_and_keep_the_other(tmp_path):
    options = {"data": str(tmp_path), "out": str(tmp_path / "out"), "batch": 1, "held_out": "1"}
    start = tmp_path / "start.safetensors"
    torch.manual_seed(0)
    weights.save(TissueNetworks().state_dict(), {"method": "deepem"}, start)
    for stage, other in (("prior", "pure"), ("pure", "prior")):
        training = DeepEMTraining(**options, stage=stage, start=str(start))
        network = training.build()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        (optimizer,) = optimizers = training.optimizers(network)
        batch = training.sample(heads(), torch.Generator().manual_seed(1))
        row = training.update(network, optimizers, batch, nullcontext)
        assert 0 < row["loss"] < 10 and 0 <= row["accuracy"] <= 1
        assert optimizer.param_groups[0]["lr"] == pytest.approx(training.learning_rate / 100)  # warms up
        changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
        assert changed and not [name for name in changed if name.startswith(other)]


def test_losses_by_hand():
    prior = DeepEMTraining(data=".", out=".")
    logits = torch.zeros(1, 9, 1, 1, 2)
    shares = torch.zeros(1, 9, 1, 1, 2)
    shares[0, 0, 0, 0, 0] = 1  # outside counts 1, brain counts 4
    shares[0, 2, 0, 0, 1] = 1
    logits[0, 2, 0, 0, 1] = 2.0
    one, other = np.log(9), np.log(8 + np.exp(2)) - 2
    assert float(prior.loss_of(logits, shares)[0]) == pytest.approx((one + 4 * other) / 5, rel=1e-5)
    pure = DeepEMTraining(data=".", out=".", stage="pure", start="x")
    logits = torch.zeros(1, 10, 1, 1, 2)
    logits[0, 9, 0, 0, 1] = 1.0
    wanted = torch.tensor([[[[0, 9]]]])  # outside counts 0.2, all else 1
    one, other = np.log(10), np.log(9 + np.e) - 1
    assert float(pure.loss_of(logits, wanted)[0]) == pytest.approx((0.2 * one + other) / 1.2, rel=1e-5)


@pytest.mark.parametrize(("options", "words"), [({"stage": "both"}, "stage"), ({"stage": "pure"}, "--start")])
def test_a_training_that_cannot_be_is_refused(options, words):
    with pytest.raises(InvalidParameterError, match=words):
        DeepEMTraining(data=".", out=".", **options)


def test_training_needs_label_maps(tmp_path):
    with pytest.raises(InvalidParameterError, match="label maps"):
        DeepEMTraining(data=str(tmp_path), out=".").split()
