"""The weights of the deep correctors: a name, a safetensors file, its SHA-256 and its card. Never pickle.

A card is a JSON file beside the weights with the same stem. It says what the weights are (method, paper, what follows
the paper, what was filled in, what deviates), what they were trained on, how they score, and where their limits are.
Weights are read only together with their card, and only if their bytes are those the card was written for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biascorr_pydra.errors import WeightsError
from biascorr_pydra.images.files import sha256, write_bytes, write_text

if TYPE_CHECKING:
    import torch

__all__ = ["card_of", "describe", "in_words", "load", "load_network", "names", "save", "sha256_of"]

FOLDER = Path(__file__).parent / "methods"
SUFFIX = ".safetensors"
RETRAIN = "Install the package again, or train and give the path of the weights."


def names() -> list[str]:
    """Names of the packaged weights, sorted."""
    return sorted(path.stem for path in FOLDER.glob(f"*/weights/*{SUFFIX}"))


def _file(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    packaged = not text.endswith(SUFFIX)
    if packaged and (not text or "/" in text or "\\" in text):
        raise WeightsError(
            f"weights are a packaged name or a {SUFFIX} file",
            value=repr(text),
            next_step=f"Packaged: {', '.join(names()) or 'none'}. Convert other formats to safetensors first.",
        )
    path = FOLDER / text.replace("-", "_") / "weights" / f"{text}{SUFFIX}" if packaged else Path(text)
    if not path.is_file():
        step = f"Packaged weights: {', '.join(names()) or 'none'}." if packaged else "Check the path."
        raise WeightsError("no such weights", file=path, next_step=step)
    return path


def card_of(name_or_path: str | Path) -> dict[str, Any]:
    """The card of weights, by packaged name or path; reads no tensors.

    Raises
    ------
    WeightsError
        No such weights, or their card is missing or not a JSON object with a ``sha256``.
    """
    path = _file(name_or_path).with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            "the weights have no card beside them", file=path, next_step="Keep the .json next to the weights."
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError("the card cannot be read", file=path, value=str(error), next_step=RETRAIN) from error
    if not isinstance(card, dict) or not isinstance(card.get("sha256"), str):
        raise WeightsError("a card is a JSON object with a sha256", file=path, next_step=RETRAIN)
    return card


def sha256_of(name_or_path: str | Path) -> str:
    """Hex SHA-256 of a weights file, from its bytes; needs no torch.

    Raises
    ------
    WeightsError
        No such weights.
    """
    return sha256(_file(name_or_path))


def describe(name_or_path: str | Path) -> dict[str, Any]:
    """Name, size in MB, SHA-256 of the file's bytes, and card; reads no tensors.

    Raises
    ------
    WeightsError
        As :func:`card_of`; or the SHA-256 is not the card's.
    """
    path, card = _verified(name_or_path)
    size = round(path.stat().st_size / 1e6, 2)
    return {"name": str(name_or_path), "megabytes": size, "sha256": card["sha256"], "card": card}


def _verified(name_or_path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The file and its card, if its bytes are those that the card was written for."""
    path, card = _file(name_or_path), card_of(name_or_path)
    if (received := sha256(path)) != card["sha256"]:
        raise WeightsError(
            f"the weights' SHA-256 is the card's ({card['sha256']})", file=path, value=received, next_step=RETRAIN
        )
    return path, card


def load(name_or_path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read weights that are what their card says.

    Parameters
    ----------
    name_or_path : packaged name, or path of a .safetensors file with its .json card beside it

    Returns
    -------
    state : tensors by name, on the CPU
    card : dict

    Raises
    ------
    WeightsError
        Weights or card are missing, the SHA-256 is not the card's, or the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    path, card = _verified(name_or_path)
    try:
        return parse(path.read_bytes()), card
    except SafetensorError as error:
        raise WeightsError("not a safetensors file", file=path, value=str(error), next_step=RETRAIN) from error


def load_network(network: torch.nn.Module, name_or_path: str | Path) -> dict[str, Any]:
    """Load weights into a network whose parameters have the same names and shapes, and return the card.

    Raises
    ------
    WeightsError
        As :func:`load`; or names or shapes differ, and the network is left as it was.
    """
    state, card = load(name_or_path)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    received = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != received:
        differing = sorted(name for name in {*expected, *received} if expected.get(name) != received.get(name))
        first = differing[0]
        raise WeightsError(
            f"the weights fit the network {type(network).__name__}",
            file=_file(name_or_path),
            value=f"{len(differing)} tensors differ, the first {first!r}: "
            f"{received.get(first, 'absent')} for {expected.get(first, 'absent')}",
            next_step="Use weights trained for this method.",
        )
    network.load_state_dict(state)
    return card


def in_words(card: Mapping[str, Any]) -> list[str]:
    """A card as lines of text: data and licence, training, scores, advice and limits, as far as it says."""
    training, data = card.get("training", {}), card.get("training_data", {})
    lines = []
    if card.get("paper"):
        lines.append(f"paper: {card['paper']}")
    if data:
        lines.append(
            f"trained on: {data.get('folder', 'data not named')}, {len(data.get('trained_on', []))} files "
            f"({len(data.get('held_out', []))} held out); licence: {data.get('licence', 'not stated')}"
        )
    if training:
        lines.append(
            f"training: {training.get('steps_done', '?')} steps of {training.get('batch', '?')}, "
            f"{training.get('minutes', '?')} min on {training.get('hardware', 'hardware not named')}, "
            f"seed {training.get('seed', '?')}"
        )
    lines += [f"{word}: {text}" for word in ("follows", "filled", "deviates") for text in card.get(word, [])]
    lines += [f"score: {text}" for text in _scores(card.get("scores", {}))]
    lines += [f"limit: {text}" for text in card.get("limits", [])]
    if card.get("advice"):
        lines.append(f"when to use it: {card['advice']}")
    return lines


def _scores(scores: Mapping[str, Any], name: str = "") -> list[str]:
    """One line for the numbers of each group, the groups' names joined."""
    values = [f"{key} {_short(value)}" for key, value in scores.items() if not isinstance(value, Mapping)]
    lines = [": ".join(filter(None, [name, ", ".join(values)]))] if values else []
    for key, value in scores.items():
        if isinstance(value, Mapping):
            lines += _scores(value, f"{name}, {key}" if name else str(key))
    return lines


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def save(state: Mapping[str, torch.Tensor], card: Mapping[str, Any], file: str | Path) -> dict[str, Any]:
    """Write weights and their card, and return the card with ``sha256`` and ``n_parameters`` filled in.

    ``n_parameters`` counts floating-point values, the running statistics of batch normalization included.

    Parameters
    ----------
    state : tensors by name
    card : JSON-serialisable; see the package's cards for the keys
    file : path ending in .safetensors; the card gets the same name ending in .json

    Raises
    ------
    WeightsError
        The name has another suffix.
    OutputError
        A file cannot be written.
    """
    from safetensors.torch import save as serialise

    path = Path(file)
    if path.suffix != SUFFIX:
        raise WeightsError(f"weights are written to {SUFFIX} files", file=path, next_step="Change the suffix.")
    content = serialise({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    write_bytes(path, content)
    card = {
        **card,
        "sha256": sha256(path),
        "n_parameters": sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point()),
    }
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    write_text(path.with_suffix(".json"), text)
    return card
