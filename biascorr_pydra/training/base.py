"""What every training has: a configuration, a split of its data by subject, and the steps that its method fills in.

The loop itself, with checkpoints, resuming, log and card, is :func:`biascorr_pydra.training.run.run`.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.resources import DEVICES

__all__ = ["CardText", "Split", "Training", "option", "split_by_subject", "subject_of"]


def option(default, help: str):
    """A field of a training's configuration, with its description."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class CardText:
    """What the card says in words.

    Attributes
    ----------
    paper : the reference
    follows, filled, deviates : what follows the paper, what it leaves open and was filled in, what differs and why
    limits : what the weights are not good for
    advice : when to choose the method over N4, or that one should not, in one sentence
    """

    paper: str
    follows: Sequence[str]
    filled: Sequence[str]
    deviates: Sequence[str]
    limits: Sequence[str]
    advice: str = ""


@dataclass(frozen=True)
class Split:
    """Files to train on and files held out, no subject in both."""

    train: list[Path]
    held_out: list[Path]

    def names(self, root: Path) -> dict[str, list[str]]:
        """The files relative to the data folder, as the card lists them."""

        def name(file: Path) -> str:
            return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name

        return {"trained_on": [name(f) for f in self.train], "held_out": [name(f) for f in self.held_out]}


def subject_of(file: Path) -> str:
    """The subject that a file is of: its BIDS entity, or else the file's name without suffixes."""
    matched = re.match(r"(sub-[A-Za-z0-9]+)(_|$|\.)", file.name)
    return matched[1] if matched else file.name.partition(".")[0]


def split_by_subject(files: Sequence[Path], held_out: str, *, data: str | Path) -> Split:
    """Hold out some subjects, with all their files.

    Parameters
    ----------
    files : in any order
    held_out : str
        A share below 1 ("0.1"), a number of subjects ("2"), or names of subjects or files separated by commas
        ("sub-01,sub-02", "seg_17,seg_18"). Shares and numbers choose by a hash of each subject's name: the
        choice is the same everywhere, follows no order of sites, and hardly moves when subjects are added.
    data : the folder, for messages

    Raises
    ------
    InvalidParameterError
        ``held_out`` is none of these, names a subject that is not there, or leaves nothing to train on.
    """
    subjects = sorted({subject_of(file) for file in files})
    text = str(held_out).strip()
    try:
        number = float(text)
    except ValueError:
        chosen = {name.strip() for name in text.split(",") if name.strip()}
        if missing := sorted(chosen - set(subjects)):
            raise InvalidParameterError(
                "held_out names subjects of the data folder",
                file=data,
                value=", ".join(missing),
                next_step=f"Some of its {len(subjects)} subjects: {', '.join(subjects[:5]) or 'none'}.",
            ) from None
    else:
        if number < 0 or (number >= 1 and number != int(number)):
            raise InvalidParameterError("held_out is a share below 1, a number of subjects, or names", value=text)
        count = int(number) if number >= 1 else round(number * len(subjects))
        if 0 < number < 1:
            count = max(1, count)
        by_hash = sorted(subjects, key=lambda name: hashlib.sha256(name.encode()).digest())
        chosen = set(by_hash[:count])
    if len(chosen) >= len(subjects):
        raise InvalidParameterError(
            "the data folder holds more subjects than are held out",
            file=data,
            value=f"{len(subjects)} subjects, {len(chosen)} held out",
            next_step="Give more data, or hold out less.",
        )
    ordered = sorted(files)
    return Split([f for f in ordered if subject_of(f) not in chosen], [f for f in ordered if subject_of(f) in chosen])


@dataclass(frozen=True)
class Training(ABC):
    """A training run's configuration, and what a method's training consists of.

    A method's class adds fields (each by :func:`option`, with a description) and fills in the methods below. Class
    attributes: ``method``, the name of method and weights; ``text``, the card's words.

    Raises
    ------
    InvalidParameterError
        A value lies outside its range.
    """

    data: str = option(MISSING, "Folder of the training data.")
    out: str = option(MISSING, "Folder for checkpoint, log, plot, weights and card.")
    steps: int = option(2000, "Optimizer steps.")
    batch: int = option(4, "Samples per step.")
    learning_rate: float = option(1e-3, "Adam's, at first; it follows a cosine down to 0 at the end.")
    seed: int = option(0, "Of the network's first weights and of everything drawn at random.")
    held_out: str = option("0.1", "Subjects never trained on: a share, a number, or names separated by commas.")
    licence: str = option("", "Licence of the data and remarks on it, for the card.")
    minutes: float | None = option(None, "End after so long in all, if the steps are not done by then.")
    checkpoint_every: int = option(100, "Steps from one checkpoint to the next.")
    log_every: int = option(20, "Steps averaged in each line of the log.")
    threads: int = option(1, "CPU threads.")
    device: str = option("auto", "auto, cpu or cuda.")
    precision: str = option("auto", "float32, bfloat16 (mixed), or auto: bfloat16 on a GPU that has it.")

    method: ClassVar[str]
    text: ClassVar[CardText]
    # Fields that may change when a run goes on: bounds in time, places and hardware.
    free: ClassVar[tuple[str, ...]] = (
        "data",
        "out",
        "licence",
        "minutes",
        "checkpoint_every",
        "log_every",
        "threads",
        "device",
        "precision",
    )

    @property
    def schedule_in_words(self) -> str:
        """The learning rates' schedule, for the card."""
        return "Adam, learning rate down to 0 along a cosine over the steps, or over the time allowed"

    def __post_init__(self):
        for name in ("steps", "batch", "checkpoint_every", "log_every", "threads"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(f"{name} is at least 1", value=getattr(self, name))
        if not 0 < self.learning_rate <= 1:
            raise InvalidParameterError("learning_rate lies between 0 and 1", value=self.learning_rate)
        if self.minutes is not None and self.minutes <= 0:
            raise InvalidParameterError("minutes is positive", value=self.minutes)
        for name, choices in (("device", DEVICES), ("precision", ("auto", "float32", "bfloat16"))):
            if getattr(self, name) not in choices:
                raise InvalidParameterError(f"{name} is one of {', '.join(choices)}", value=getattr(self, name))

    @classmethod
    def options(cls) -> dict[str, tuple[Any, str]]:
        """Name -> (default, description) of every field; the default is MISSING where there is none."""
        return {f.name: (f.default, f.metadata["help"]) for f in fields(cls)}

    def settings(self) -> dict[str, Any]:
        """What must not change when a run goes on."""
        return {name: value for name, value in asdict(self).items() if name not in self.free}

    # --- what a method fills in

    @abstractmethod
    def split(self) -> Split:
        """Files to train on and files held out."""

    @abstractmethod
    def build(self) -> torch.nn.Module:
        """The network with its first weights; torch's own generator is seeded before."""

    @abstractmethod
    def open(self, files: Sequence[Path]) -> Any:
        """The data of some files, in memory or ready to be read."""

    @abstractmethod
    def sample(self, data: Any, generator: torch.Generator) -> Any:
        """A batch on the CPU: a tensor, or a tuple, list or dict of them. Every random number is the generator's."""

    @abstractmethod
    def loss(self, network: Any, batch: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        """The loss, a scalar tensor, and numbers for the log. The batch is on the network's device."""

    @abstractmethod
    def score(self, network: Any, data: Any) -> dict[str, Any]:
        """Scores of the trained network on the held-out data, JSON-serialisable; it is in evaluation mode."""

    def facts(self, data: Any) -> dict[str, Any]:
        """More for the card's "training_data"."""
        return {}

    def card_facts(self, network: Any) -> dict[str, Any]:
        """More for the card itself, such as what the network was made with."""
        return {}

    # --- what a method may change

    def optimizers(self, network: Any) -> list[torch.optim.Optimizer]:
        """The optimizers; their learning rates at first are those that the schedule starts from."""
        return [torch.optim.Adam(network.parameters(), self.learning_rate)]

    def rate_factors(self, progress: float) -> list[float]:
        """By what each optimizer's first learning rates are multiplied, at this share of the run (0 to 1).

        One factor stands for all of them.
        """
        return [(1 + math.cos(math.pi * progress)) / 2]

    def update(
        self,
        network: Any,
        optimizers: list[torch.optim.Optimizer],
        batch: Any,
        autocast: Callable[[], AbstractContextManager],
    ) -> Mapping[str, float]:
        """One step of training; the numbers for the log, "loss" among them."""
        network.train()
        with autocast():
            loss, row = self.loss(network, batch)
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        return {"loss": float(loss.detach()), **{name: float(value) for name, value in row.items()}}
