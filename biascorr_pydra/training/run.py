"""The loop of every training: checkpoints, going on after a kill, a log, its plot, and at the end weights and card.

In the output folder: ``config.json``, ``checkpoint.pt`` (read with ``weights_only``), ``log.tsv``,
``losses.png``, ``METHOD.safetensors`` and ``METHOD.json``, its card.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch

from biascorr_pydra import weights
from biascorr_pydra.errors import InvalidParameterError, TrainingError
from biascorr_pydra.images.files import write_atomic
from biascorr_pydra.lock import exclusive
from biascorr_pydra.resources import resolve_device

from .base import Split, Training
from .config import keep
from .log import Log, plot_log

__all__ = ["Progress", "run"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands: step and steps, seconds so far, share done (0 to 1), and the last line of the log."""

    step: int
    steps: int
    seconds: float
    share: float
    row: dict[str, float]


def run(
    config: Training,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Train, or go on from the last checkpoint in the output folder, and write weights and card there.

    Without a bound in time, the same configuration gives the same weights on one machine, device and number of threads,
    whether or not the run was interrupted.

    Parameters
    ----------
    config : a method's training
    progress : called after each line of the log
    stop : asked after each step; if it says so, the step is kept and the run ends with KeyboardInterrupt

    Returns
    -------
    The card.

    Raises
    ------
    InvalidParameterError
        The data do not allow a split, or the folder holds a run with other settings.
    RunLockedError
        Another run is at work in the folder.
    TrainingError
        The loss is no longer finite, or the checkpoint cannot be read; what was written is left.
    """
    split = config.split()
    with exclusive(Path(config.out), {"what": f"training of {config.method}"}):
        torch.set_num_threads(config.threads)
        state = _State(config)
        state.resume()
        keep(config, Path(config.out))
        data = config.open(split.train)
        if state.progress() < 1:
            _loop(state, data, progress, stop)
        log_file = state.log.file
        plot_log(log_file, log_file.with_name("losses.png"), title=f"{config.method}: {state.step} steps")
        return _finish(state, split, config.facts(data))


def _loop(state: _State, data: Any, progress, stop) -> None:
    config = state.config
    began = time.monotonic() - state.seconds
    try:
        while state.progress() < 1:
            state.advance(data)
            state.seconds = time.monotonic() - began
            state.log.add(state.row)
            ended = state.progress() >= 1
            if ended or state.step % config.log_every == 0:
                means = state.log.write(state.step, state.seconds)
                if progress:
                    progress(Progress(state.step, config.steps, state.seconds, state.progress(), means))
            if ended or state.step % config.checkpoint_every == 0:
                state.save()
            if not ended and stop and stop():
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        if state.whole:  # in the middle of a step network and generator would disagree
            state.save()
        raise


class _State:
    """What a checkpoint keeps: network, optimizers, random numbers, step and time."""

    def __init__(self, config: Training):
        self.config = config
        self.device = resolve_device(config.device)
        torch.manual_seed(config.seed)
        self.network = config.build().to(self.device)
        self.optimizers = config.optimizers(self.network)
        self.rates = [[group["lr"] for group in one.param_groups] for one in self.optimizers]
        self.generator = torch.Generator().manual_seed(config.seed)
        self.autocast = _autocast(self.device, config.precision)
        self.step, self.seconds, self.whole = 0, 0.0, True
        self.row: dict[str, float] = {}
        self.file = Path(config.out) / "checkpoint.pt"
        self.log = Log(Path(config.out) / "log.tsv")

    def progress(self) -> float:
        """How much of the run is done, by steps or by time, whichever ends it first."""
        bound = 60 * self.config.minutes if self.config.minutes else math.inf
        return min(1.0, max(self.step / self.config.steps, self.seconds / bound))

    def advance(self, data: Any) -> None:
        """One step of training."""
        self.whole = False
        factors = self.config.rate_factors(self.progress())
        factors *= len(self.optimizers) if len(factors) == 1 else 1
        for optimizer, rates, factor in zip(self.optimizers, self.rates, factors, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        batch = _to(self.config.sample(data, self.generator), self.device)
        self.row = dict(self.config.update(self.network, self.optimizers, batch, self.autocast))
        self.step += 1
        if not math.isfinite(self.row["loss"]):
            raise TrainingError(
                f"the loss is finite at every step, and at step {self.step} it is not",
                file=self.file,
                value=self.row["loss"],
                next_step="Lower the learning rate and train in another folder; the last checkpoint is left.",
            )
        self.whole = True

    def save(self) -> None:
        state = {
            "config": self.config.settings(),
            "network": self.network.state_dict(),
            "optimizers": [one.state_dict() for one in self.optimizers],
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "cuda_generators": torch.cuda.get_rng_state_all() if self.device == "cuda" else [],
            "step": self.step,
            "seconds": self.seconds,
            "not_logged": self.log.rows,
        }
        write_atomic(self.file, lambda stream: torch.save(state, stream))

    def resume(self) -> None:
        """Take up the checkpoint, if there is one."""
        if not self.file.is_file():
            self.log.cut(None)
            return
        state = self._read()
        kept, now = state["config"], self.config.settings()
        if kept != now:
            differing = [name for name in sorted({*kept, *now}) if kept.get(name) != now.get(name)]
            raise InvalidParameterError(
                "a run goes on with the settings it began with",
                file=self.file,
                value=", ".join(f"{name} {now.get(name)!r}, at first {kept.get(name)!r}" for name in differing),
                next_step="Use another output folder, or remove the checkpoint to begin anew.",
            )
        self.network.load_state_dict(state["network"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        if self.device == "cuda" and state["cuda_generators"]:
            torch.cuda.set_rng_state_all(state["cuda_generators"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.log.cut(self.step)
        self.log.rows = state["not_logged"]

    def _read(self) -> dict[str, Any]:
        try:
            state = torch.load(self.file, weights_only=True, map_location="cpu")
            return {name: state[name] for name in ("config", "network", "optimizers", "generator", *CHECKPOINT_REST)}
        except Exception as error:  # torch raises whatever the damage leads to
            raise TrainingError(
                "the checkpoint is one that this training wrote",
                file=self.file,
                value=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more is known'}",
                next_step="Remove it to begin anew, or give another folder.",
            ) from error


CHECKPOINT_REST = ("torch_generator", "cuda_generators", "step", "seconds", "not_logged")


def _autocast(device: str, precision: str):
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return nullcontext if precision == "float32" else partial(torch.autocast, device, torch.bfloat16)


def _to(batch: Any, device: str) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: _to(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_to(value, device) for value in batch)
    return batch


def _finish(state: _State, split: Split, facts: dict[str, Any]) -> dict[str, Any]:
    """Score, and write weights and card."""
    config, text = state.config, state.config.text
    state.network.eval()
    with torch.inference_mode():
        scores = config.score(state.network, config.open(split.held_out)) if split.held_out else {}
    mixed = "float32" if state.autocast is nullcontext else "bfloat16 (mixed)"
    hardware = torch.cuda.get_device_name() if state.device == "cuda" else platform.machine()
    card = {
        "method": config.method,
        "paper": text.paper,
        "follows": list(text.follows),
        "filled": list(text.filled),
        "deviates": list(text.deviates),
        "training": {
            **config.settings(),
            "steps_done": state.step,
            "schedule": config.schedule_in_words,
            "minutes": round(state.seconds / 60, 1),
            "minutes_allowed": config.minutes,
            "hardware": f"{state.device} ({hardware}), {config.threads} thread(s), {mixed}",
            "torch": torch.__version__,
        },
        "training_data": {
            "folder": Path(config.data).resolve().name,
            "licence": config.licence or "not stated",
            **split.names(Path(config.data)),
            **facts,
        },
        **config.card_facts(state.network),
        "scores": {"held_out": scores},
        "limits": list(text.limits),
        "advice": text.advice,
        "date": date.today().isoformat(),
    }
    return weights.save(state.network.state_dict(), card, Path(config.out) / f"{config.method}{weights.SUFFIX}")
