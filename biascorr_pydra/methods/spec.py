"""How a user names a method: ``METHOD``, or ``METHOD:PRESET``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MethodSpec"]


@dataclass(frozen=True)
class MethodSpec:
    """A correction method as asked for: ``name`` or ``name:preset``."""

    method: str
    preset: str | None = None

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """From ``name`` or ``name:preset``, unchecked."""
        name, _, preset = text.partition(":")
        return cls(name, preset or None)

    def __str__(self) -> str:
        return f"{self.method}:{self.preset}" if self.preset else self.method

    @property
    def label(self) -> str:
        """Folder name of its derivative data set."""
        return f"{self.method}_{self.preset}" if self.preset else self.method
