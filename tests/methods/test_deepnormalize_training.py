"""DeepNormalize's training: losses by hand, the schedule of updates, data from BIDS, and a toy problem of two sites."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import make_phantom
from scipy import ndimage

from biascorr_pydra.errors import BIDSError, InvalidParameterError
from biascorr_pydra.images import nifti
from biascorr_pydra.methods.deepnormalize import model
from biascorr_pydra.methods.deepnormalize.losses import adversarial_loss, dice_loss, discriminator_loss
from biascorr_pydra.methods.deepnormalize.networks import DeepNormalize
from biascorr_pydra.methods.deepnormalize.score import tissue_scores
from biascorr_pydra.methods.deepnormalize.training import DeepNormalizeTraining
from biascorr_pydra.methods.deepnormalize.training_data import bias_ramp, find_scans, open_scans, read_scan
from biascorr_pydra.metrics import dice, jsd
from biascorr_pydra.training import run

pytestmark = pytest.mark.usefixtures("one_thread")


# --- by hand


def test_dice_loss_with_the_papers_weights():
    # Two voxels: the first is GM, the second WM. Channels: BG, CSF, GM, WM.
    probabilities = torch.tensor([[[0.1, 0.2], [0.2, 0.1], [0.6, 0.1], [0.1, 0.6]]]).reshape(1, 4, 2, 1, 1)
    truth = torch.tensor([2, 3]).reshape(1, 2, 1, 1)
    both = 0.20 * 0.6 + 0.28 * 0.6
    total = 0.22 * 0.3 + 0.30 * 0.3 + 0.20 * (0.7 + 1) + 0.28 * (0.7 + 1)
    assert dice_loss(probabilities, truth).item() == pytest.approx(1 - 2 * both / total, abs=2e-5)
    right = torch.nn.functional.one_hot(truth, 4).movedim(-1, 1).float()
    assert dice_loss(right, truth).item() == pytest.approx(0, abs=1e-6)


def test_losses_of_the_k_plus_1_classes():
    real = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2]]).log()
    generated = torch.tensor([[0.25, 0.25, 0.5], [0.4, 0.4, 0.2]]).log()
    expected = -(np.log(0.5) + np.log(0.6)) / 2 - (np.log(0.5) + np.log(0.2)) / 2
    assert discriminator_loss(real, torch.tensor([0, 1]), generated).item() == pytest.approx(expected, rel=1e-5)
    assert adversarial_loss(generated).item() == pytest.approx((np.log(0.5) + np.log(0.2)) / 2, rel=1e-5)


def test_the_generator_gains_where_the_discriminator_takes_its_patches_for_real():
    logits = torch.zeros(1, 3, requires_grad=True)
    adversarial_loss(logits).backward()
    # d log softmax_3 / d logits = (0, 0, 1) - softmax: going down it, the last logit falls and the others rise.
    torch.testing.assert_close(logits.grad, torch.tensor([[-1 / 3, -1 / 3, 2 / 3]]))


def test_the_linear_field():
    y = torch.tensor([-5.0, 0, 25, 50, 100, 120])
    torch.testing.assert_close(bias_ramp(y, 100, 0.8), torch.tensor([0.2, 0.2, 0.4, 0.6, 1, 1]))
    assert (bias_ramp(y, 100, 0.0) == 1).all()


def test_tissue_scores_by_hand():
    truth = np.zeros((8, 8, 8), int)
    truth[2:6, 2:6, 2:6] = 2
    dseg = np.roll(truth, 2, axis=0)
    scores = tissue_scores(dseg, truth)
    assert scores["dice"] == {"CSF": None, "GM": 0.5, "WM": None}
    assert scores["mean_hausdorff_mm"]["GM"] == 2.0


# --- data


def scan_of(seed: int, tissues, dark: float = 1.0):
    phantom = make_phantom((26, 28, 24), voxel_mm=2.0, seed=seed)
    data = np.choose(phantom.dseg, [0.0, *tissues]) * 300 * dark
    noise = np.random.default_rng(seed).normal(0, 6, data.shape)
    return phantom, np.where(phantom.brain, np.abs(data + noise), 0)


SITES = {"a": (0.6, 1.0, 0.25), "b": (0.9, 0.7, 0.3)}  # GM, WM, CSF


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A BIDS data set with a site column, and segmentations in its derivatives; T1w and, inverted, T2w."""
    root = tmp_path_factory.mktemp("study")
    rows = ["participant_id\tsite"]
    for folder in (root, root / "derivatives"):
        folder.mkdir(exist_ok=True)
        about = {"Name": "study", "BIDSVersion": "1.11.0"}
        about |= {} if folder is root else {"DatasetType": "derivative", "GeneratedBy": [{"Name": "by hand"}]}
        (folder / "dataset_description.json").write_text(json.dumps(about))
    for number in range(4):
        site = "ab"[number % 2]
        phantom, data = scan_of(number, SITES[site])
        for folder in (root, root / "derivatives"):
            (folder / f"sub-{number}" / "anat").mkdir(parents=True)
        stem = f"sub-{number}/anat/sub-{number}_"
        nifti.save(phantom.image(data), root / f"{stem}T1w.nii.gz")
        nifti.save(phantom.image(np.where(phantom.brain, 400 - data, 0)), root / f"{stem}T2w.nii.gz")
        nifti.save(phantom.image(phantom.dseg, np.uint8), root / "derivatives" / f"{stem}dseg.nii.gz")
        rows.append(f"sub-{number}\t{site}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    return root


def config(study, out, **changes):
    small = {"steps": 3, "batch": 2, "width": 2, "discriminator_width": 2, "warm_up": 1, "held_out": "3"}
    small |= {"held_out": "sub-3", "checkpoint_every": 2, "log_every": 1}
    return DeepNormalizeTraining(data=str(study), out=str(out), **small | changes)


def test_sites_and_segmentations_come_from_bids(study, tmp_path):
    training = config(study, tmp_path)
    assert training.sites() == ["a", "b"] and len(training.scans()) == 4
    split = training.split()
    assert [f.name for f in split.held_out] == ["sub-3_T1w.nii.gz"]
    scan = read_scan(training.scans()[split.held_out[0]])
    phantom, _ = scan_of(3, SITES["b"])
    voxels = np.argwhere(phantom.dseg > 0)
    classes = scan.truth[tuple((2 * voxels - scan.prepared.first).T)]  # voxels of 2 mm on a grid of 1 mm
    class_of = np.array([0, 2, 3, 1])  # of 0, GM, WM, CSF among BG, CSF, GM, WM
    np.testing.assert_array_equal(classes, class_of[phantom.dseg[tuple(voxels.T)]])
    (study / "empty").mkdir()
    (study / "empty" / "dataset_description.json").write_text('{"Name": "none", "BIDSVersion": "1.11.0"}')
    with pytest.raises(BIDSError, match="dseg"):
        find_scans(str(study), ("T1w",), "empty")


def _range(values):
    finite = values[~values.isnan()]
    return float(finite.max() - finite.min()) if len(finite) else 0.0


def test_patches_are_centred_on_tissue_balanced_and_degraded(study, tmp_path):
    training = config(study, tmp_path, bias_share=1.0, suffixes="T1w,T2w")
    assert training.network_arguments()["channels"] == 2
    files = sorted(training.scans())
    patches = open_scans(files, training.scans(), training.sites(), bias_share=1.0, z_scores=False)
    drawn = patches.draw(6, torch.Generator().manual_seed(0))
    assert sorted(drawn["domain"].tolist()) == [0, 0, 0, 1, 1, 1]
    assert drawn["real"].shape == drawn["image"].shape == (6, 2, 32, 32, 32)
    assert (drawn["truth"][:, 14:18, 14:18, 14:18] > 0).flatten(1).any(1).all()
    for real, degraded in zip(drawn["real"], drawn["image"], strict=True):
        ratio = torch.where(real > 0.1, degraded / real, torch.nan)
        assert (ratio[0] - ratio[1])[(real > 0.1).all(0)].abs().max() < 1e-4  # one field for both modalities
        # Along one axis it varies, and in each plane across that axis it is one number.
        spread = [max(_range(plane) for plane in ratio[0].unbind(axis)) for axis in range(3)]
        assert min(spread) < 1e-3 < _range(ratio[0])
    plain = open_scans(files, training.scans(), training.sites(), bias_share=0.0, z_scores=True)
    drawn = plain.draw(2, torch.Generator().manual_seed(0))
    assert torch.equal(drawn["real"], drawn["image"]) and drawn["real"].min() < 0


# --- the schedule


class Counted(torch.optim.SGD):
    """Counts its steps; does nothing else."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.0)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["step"] = torch.tensor(float(self.count))


def random_batch(n=2, steps=3):
    def draw():
        x = torch.rand(n, 1, 32, 32, 32)
        return {"real": x, "image": x, "truth": (4 * x[:, 0]).long().clamp(max=3), "domain": torch.arange(n) % 2}

    return {"learn": draw(), "tell": [draw() for _ in range(steps)]}


def test_three_updates_of_the_discriminator_for_one_of_the_others(tmp_path):
    torch.manual_seed(0)
    training = DeepNormalizeTraining(data="x", out="y", warm_up=1)
    assert training.discriminator_steps == 3
    network = DeepNormalize(width=2, domains=2, discriminator_width=2)
    learns = Counted([*network.segmenter.parameters(), *network.generator.parameters()])
    tells = Counted(network.discriminator.parameters())
    counts = []
    for _ in range(3):
        row = training.update(network, [learns, tells], random_batch(), nullcontext)
        counts.append((learns.count, tells.count))
    assert counts == [(1, 0), (2, 3), (3, 6)]  # the first is the warm-up
    assert row["loss"] == pytest.approx(row["dice_loss"] + 1.5 * row["adversarial"], rel=1e-4)
    without = DeepNormalizeTraining(data="x", out="y", warm_up=0, adversarial_weight=0.0)
    row = without.update(network, [learns, tells], {"learn": random_batch()["learn"]}, nullcontext)
    assert tells.count == 6 and row["loss"] == row["dice_loss"]


def test_the_papers_learning_rates(tmp_path):
    training = DeepNormalizeTraining(data="x", out="y")
    at = {epoch: training.rate_factors(epoch / 120) for epoch in (0, 49, 50, 74, 76)}
    assert at[0] == at[49] == [1, 1] and at[50] == at[74] == [pytest.approx(0.1), 1]
    assert at[76] == [pytest.approx(0.01), 0.1]
    defaults = (training.learning_rate, training.discriminator_rate, training.weight_decay, training.width)
    assert defaults == (1e-3, 1e-4, 1e-3, 32)


@pytest.mark.parametrize("wrong", [{"model": "gan"}, {"schedule": "no"}, {"width": 0}, {"bias_share": 2.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InvalidParameterError):
        DeepNormalizeTraining(data="x", out="y", **wrong)


def test_a_training_writes_weights_that_normalize(study, tmp_path):
    card = run.run(config(study, tmp_path / "out"))
    assert card["network"] == {
        "width": 2,
        "channels": 1,
        "domains": 2,
        "generates": True,
        "discriminator_width": 2,
    }
    assert card["sites"] == ["a", "b"] and card["paper_width"] == 32
    scores = card["scores"]["held_out"]
    assert set(scores["dice"]) == {"CSF", "GM", "WM", "mean"} and "b" in scores["by_site"]
    assert set(scores["confusion"]) == {"b", "generated"}
    phantom, data = scan_of(5, SITES["a"])
    weights_file = str(tmp_path / "out" / "deepnormalize.safetensors")
    normalized = model.normalize_array([data], phantom.affine, phantom.brain, speed="fast", weights_file=weights_file)
    assert normalized.images.shape == (1, 26, 28, 24) and (normalized.images[0][phantom.brain] > 0).all()
    assert run.run(config(study, tmp_path / "out"))["sha256"] == card["sha256"]  # it has ended: nothing more is done


# --- a toy problem


def toy_batch(generator, n=8, size=16):
    """Blobs of three tissues; site 1 is dimmer and has less contrast."""
    means = ((0.0, 0.2, 0.5, 0.8), (0.0, 0.12, 0.3, 0.48))
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    truth, images, domains = [], [], []
    for i in range(n):
        smooth = ndimage.gaussian_filter(rng.normal(size=(size,) * 3), 2.5)
        labels = 1 + np.digitize(smooth, np.quantile(smooth, (0.25, 0.6)))
        labels[ndimage.gaussian_filter(rng.normal(size=(size,) * 3), 4) > 0.03] = 0
        values = np.take(means[i % 2], labels) + (labels > 0) * rng.normal(0, 0.03, labels.shape)
        truth.append(labels)
        images.append(np.where(labels > 0, np.clip(values, 0.01, 1), 0))
        domains.append(i % 2)
    x = torch.tensor(np.stack(images)[:, None], dtype=torch.float32)
    return {"real": x, "image": x, "truth": torch.tensor(np.stack(truth)), "domain": torch.tensor(domains)}


def toy_scores(network, generator):
    """Mean Dice of the tissues, and JSD between the sites before and after."""
    batch = toy_batch(generator, 32)
    with torch.inference_mode():
        normalized, logits = network.eval()(batch["image"])
    classes, truth = logits.argmax(1).numpy(), batch["truth"].numpy()
    histograms = [
        [np.histogram(x[batch["domain"] == d][truth[batch["domain"] == d][:, None] > 0], 64, (0, 1))[0] for d in (0, 1)]
        for x in (batch["image"].numpy(), normalized.numpy())
    ]
    return np.mean([dice(classes == c, truth == c) for c in (1, 2, 3)]), *[jsd(np.array(h)) for h in histograms]


@pytest.mark.slow
def test_adversarial_training_brings_two_sites_together_while_dice_holds():
    torch.manual_seed(0)
    settings = {"warm_up": 150, "learning_rate": 3e-3, "discriminator_rate": 3e-4, "schedule": "cosine"}
    training, steps = DeepNormalizeTraining(data="x", out="y", **settings), 300
    network = DeepNormalize(width=4, domains=2, size=16, discriminator_width=8)
    optimizers, generator = training.optimizers(network), torch.Generator().manual_seed(0)
    rates = training.learning_rate, training.discriminator_rate
    seen = {}
    for step in range(steps):
        for optimizer, rate, factor in zip(optimizers, rates, training.rate_factors(step / steps), strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
        batch = {"learn": toy_batch(generator)}
        if step >= training.warm_up:
            batch["tell"] = [toy_batch(generator) for _ in range(3)]
        training.update(network, optimizers, batch, nullcontext)
        if step + 1 in (training.warm_up, steps):
            seen[step + 1] = toy_scores(network, torch.Generator().manual_seed(1))
    (overlap, before, warm), (overlap_after, _, after) = seen[150], seen[300]
    assert before > 0.3  # of at most ln 2 = 0.69
    assert warm > 0.15  # so far the generator has only learnt to return its input
    assert after < 0.6 * before and after < 0.9 * warm
    assert overlap > 0.8 and overlap_after > overlap - 0.08
