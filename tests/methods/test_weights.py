"""Weights: what is saved is what is loaded, and nothing else is ever loaded."""

import json
import subprocess
import sys

import pytest
import torch

from biascorr_pydra import weights
from biascorr_pydra.errors import BiasCorrError, WeightsError
from biascorr_pydra.methods.ubc.networks import UBC


@pytest.fixture
def saved(tmp_path):
    network = torch.nn.Linear(3, 2)
    weights.save(network.state_dict(), {"method": "test"}, tmp_path / "toy.safetensors")
    return network, tmp_path / "toy.safetensors"


def test_saving_and_loading_are_inverse(saved):
    network, file = saved
    state, card = weights.load(file)
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor)
    assert card["method"] == "test"
    assert card["n_parameters"] == 8
    assert card["sha256"] == weights.sha256_of(file)


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    network, file = saved
    weights.save(network.state_dict(), {}, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_a_changed_byte_is_found(saved):
    _, file = saved
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256") as caught:
        weights.load(file)
    assert str(file) in str(caught.value)
    assert weights.sha256_of(file) in str(caught.value)


def test_a_listing_verifies_too(saved):
    _, file = saved
    assert weights.describe(file)["sha256"] == weights.sha256_of(file)
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(WeightsError, match="SHA-256"):
        weights.describe(file)


def test_a_card_in_words_says_data_training_scores_and_limits():
    card = {
        "training": {"steps_done": 9, "batch": 4, "minutes": 1.5, "hardware": "cpu", "seed": 0},
        "training_data": {"folder": "maps", "licence": "CC0", "trained_on": ["a", "b"], "held_out": ["c"]},
        "scores": {"held_out": {"n4": {"slope": 0.91234, "n": 3}, "heads": 2}},
        "limits": ["adults"],
        "advice": "never",
    }
    assert weights.in_words(card) == [
        "trained on: maps, 2 files (1 held out); licence: CC0",
        "training: 9 steps of 4, 1.5 min on cpu, seed 0",
        "score: held_out: heads 2",
        "score: held_out, n4: slope 0.912, n 3",
        "limit: adults",
        "when to use it: never",
    ]
    assert weights.in_words({}) == []


def test_missing_weights_and_missing_cards_are_errors(saved):
    _, file = saved
    with pytest.raises(WeightsError, match="no such weights"):
        weights.load(file.with_name("other.safetensors"))
    with pytest.raises(WeightsError, match="ubc"):
        weights.load("no-such-method")
    file.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match="no card"):
        weights.load(file)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"sha256": 3}', "\xff"])
def test_unusable_cards_are_errors(saved, text):
    _, file = saved
    file.with_suffix(".json").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match="card"):
        weights.load(file)


def test_a_file_of_another_kind_is_an_error_even_with_the_right_hash(saved):
    _, file = saved
    file.write_bytes(b"not safetensors")
    file.with_suffix(".json").write_text(json.dumps({"sha256": weights.sha256_of(file)}))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        weights.load(file)


@pytest.mark.parametrize("name", ["model.pt", "folder/model", "", "../ubc"])
def test_only_names_and_safetensors_files_are_taken(name, tmp_path):
    with pytest.raises(WeightsError):
        weights.load(name)
    with pytest.raises(WeightsError, match="safetensors"):
        weights.save({}, {}, tmp_path / "model.pt")


@pytest.mark.parametrize(
    "other", [torch.nn.Linear(3, 4), torch.nn.Linear(3, 2, bias=False), torch.nn.Sequential(torch.nn.Linear(3, 2))]
)
def test_weights_of_another_network_are_refused_and_leave_it_as_it_was(saved, other):
    _, file = saved
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(WeightsError, match="differ"):
        weights.load_network(other, file)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_weights_fill_a_network(saved):
    network, file = saved
    other = torch.nn.Linear(3, 2)
    card = weights.load_network(other, file)
    x = torch.randn(5, 3)
    assert torch.equal(other(x), network(x))
    assert card["method"] == "test"


def test_ubc_is_packaged_and_fits_its_network():
    assert "ubc" in weights.names()
    assert weights.load_network(UBC(), "ubc")["method"] == "ubc"


def test_hashing_loads_no_torch():
    code = "import sys; from biascorr_pydra import weights; print(weights.sha256_of('ubc'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [weights.sha256_of("ubc"), "False"]


def test_weights_errors_are_value_errors():
    assert issubclass(WeightsError, ValueError)
    assert issubclass(WeightsError, BiasCorrError)


# --- the packaged weights


@pytest.mark.parametrize("name", weights.names())
def test_a_packaged_card_says_everything(name):
    state, card = weights.load(name)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert sum(t.numel() for t in state.values() if t.is_floating_point()) == card["n_parameters"]
    assert card["method"] == name
    for key in ("follows", "filled", "deviates", "limits"):
        assert card[key] and all(isinstance(text, str) and text for text in card[key])
    assert card["paper"] and card["advice"]
    assert {"seed", "steps_done", "minutes", "hardware"} <= card["training"].keys()
    data = card["training_data"]
    assert data["licence"] not in ("", "not stated")
    assert data["trained_on"] and not {*data["trained_on"]} & {*data["held_out"]}
    assert "n4" in json.dumps(card["scores"])  # next to what it is to be compared with


def test_all_weights_together_are_small():
    assert sum(file.stat().st_size for file in weights.FOLDER.iterdir()) < 30e6
