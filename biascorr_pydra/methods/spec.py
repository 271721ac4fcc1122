"""How a user names a method: ``METHOD``, or ``METHOD:PRESET``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from biascorr_pydra.errors import InvalidParameterError

from .corrector import Corrector
from .registry import get_corrector

__all__ = ["NO_FALLBACK", "MethodSpec"]

#: Stands where a method to fall back on could be named.
NO_FALLBACK = "none"


@dataclass(frozen=True)
class MethodSpec:
    """A correction method as asked for: ``name`` or ``name:preset``.

    Examples
    --------
    >>> MethodSpec.parse("n4:antspy")
    MethodSpec(method='n4', preset='antspy')
    >>> MethodSpec.parse("n4:antspy").label
    'n4_antspy'
    """

    method: str
    preset: str | None = None

    @classmethod
    def parse(cls, text: str, preset: str | None = None) -> MethodSpec:
        """From ``METHOD`` or ``METHOD:PRESET``, and a preset that was given by itself; whether they exist is unchecked.

        Raises
        ------
        InvalidParameterError
            The preset is given twice, and differently.
        """
        name, _, inner = text.partition(":")
        if inner and preset and inner != preset:
            raise InvalidParameterError(
                "a preset is given once, with the method or by itself",
                value=f"method {text!r} and preset {preset!r}",
                next_step=f"Give method {name!r} with one of them.",
            )
        return cls(name, inner or preset or None)

    def corrector(self, **parameters: Any) -> Corrector:
        """The method with its preset, and single parameters on top of it.

        Raises
        ------
        UnknownMethodError, InvalidParameterError
            No such method, preset or parameter, or a value that the method refuses.
        """
        return get_corrector(self.method).from_options(self.preset, **parameters)

    def __str__(self) -> str:
        return f"{self.method}:{self.preset}" if self.preset else self.method

    @property
    def label(self) -> str:
        """Folder name of its derivative data set."""
        return f"{self.method}_{self.preset}" if self.preset else self.method
