"""The correction methods, one file each; a file's name is its method's name, with - for _.

The listing comes from the file names, so that naming the methods loads none of them (and not torch).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..errors import UnknownMethodError

__all__ = ["DEFAULT_METHOD", "REFERENCE_METHOD", "get_corrector", "method_names"]

#: What corrects where no method is named; docs/deepem.md tells why.
DEFAULT_METHOD = "deepem"
#: What others are held against, what a scan is corrected by before its tissues are segmented for all methods alike, and
#: what takes the place of ANTs' N4 in other people's workflows.
REFERENCE_METHOD = "n4"


def method_names() -> list[str]:
    """Names of the methods, sorted."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(path.stem.replace("_", "-") for path in files)


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
    return import_module(f"{__name__}.{name.replace('-', '_')}").CORRECTOR
