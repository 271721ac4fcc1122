"""A method that runs inside another: only one that the outer method's class declares in ``runs``."""

from __future__ import annotations

from typing import Any

from biascorr_pydra.errors import BrokenMethodError

from .corrector import Corrector
from .registry import get_corrector

__all__ = ["inner_corrector"]


def inner_corrector(outer: Corrector, name: str, preset: str | None = None, **parameters: Any) -> Corrector:
    """Another method, to be run inside ``outer``.

    Raises
    ------
    BrokenMethodError
        The class of ``outer`` does not declare it in ``runs``.
    UnknownMethodError, InvalidParameterError
    """
    if name not in outer.runs:
        raise BrokenMethodError(
            f"method {outer.name!r} does not declare that it runs this method",
            value=repr(name),
            next_step="Add its name to the class attribute `runs`, which the keys of cached results follow.",
        )
    return get_corrector(name).from_options(preset, **parameters)
