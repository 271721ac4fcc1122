"""What the cards of the two implicitly trained correctors say of the papers."""

from __future__ import annotations

from ._base import CardText

__all__ = ["GETNET", "IMPLICIT"]

GETNET = CardText(paper="Simko et al. arXiv:1909.05484, 2019.", follows=[], filled=[], deviates=[], limits=[])
IMPLICIT = CardText(paper="Simko et al. MIDL, 2022.", follows=[], filled=[], deviates=[], limits=[])
