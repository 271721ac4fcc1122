"""Training, one file a method: a configuration goes in; weights, their card and a log come out.

A file's name is its method's name, with - for _, and holds the method's training (:mod:`._base`) as ``TRAINING``.
The listing comes from the file names, so that naming the methods loads none of them (and not torch).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..errors import UnknownMethodError

__all__ = ["get_training", "training_names"]


def training_names() -> list[str]:
    """Names of the methods that can be trained, sorted."""
    return sorted(path.stem.replace("_", "-") for path in Path(__file__).parent.glob("[a-z]*.py"))


def get_training(name: str):
    """The training configuration class of the method of that name.

    Raises
    ------
    UnknownMethodError
    """
    if name not in training_names():
        raise UnknownMethodError(
            "no method of that name can be trained",
            value=repr(name),
            next_step=f"Methods with a training: {', '.join(training_names())}.",
        )
    return import_module(f"{__name__}.{name.replace('-', '_')}").TRAINING
