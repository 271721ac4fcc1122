"""The correction methods, one folder each; a folder's name is its method's name, with - for _.

The listing comes from the names of the folders with a ``corrector.py``, so that naming the methods loads none of them
(and not torch).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from biascorr_pydra.errors import UnknownMethodError

__all__ = ["DEFAULT_METHOD", "REFERENCE_METHOD", "get_corrector", "get_training", "method_names", "training_names"]

#: What corrects where no method is named; docs/deepem.md tells why.
DEFAULT_METHOD = "deepem"
#: What others are held against, what a scan is corrected by before its tissues are segmented for all methods alike, and
#: what takes the place of ANTs' N4 in other people's workflows.
REFERENCE_METHOD = "n4"


def method_names() -> list[str]:
    """Names of the methods, sorted."""
    files = Path(__file__).parent.glob("*/corrector.py")
    return sorted(path.parent.name.replace("_", "-") for path in files)


def get_corrector(name: str):
    """The corrector class of that name.

    Raises
    ------
    UnknownMethodError
    """
    if name not in method_names():
        raise UnknownMethodError(
            "no correction method of that name",
            value=repr(name),
            next_step=f"Methods: {', '.join(method_names())} (see `biascorr methods`).",
        )
    return import_module(f"{__package__}.{name.replace('-', '_')}.corrector").CORRECTOR


def training_names() -> list[str]:
    """Names of the methods that can be trained, sorted."""
    files = Path(__file__).parent.glob("*/training.py")
    names = {path.parent.name.replace("_", "-") for path in files}
    return sorted(names & set(method_names()))


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
    return import_module(f"{__package__}.{name.replace('-', '_')}.training").TRAINING
