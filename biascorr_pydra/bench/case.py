"""One scan to measure correctors on, with all that is known of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from biascorr_pydra.methods.corrector import Scan

__all__ = ["FACTS", "Case", "Planned", "extra_seed"]

#: What tells one case from another, in the order of the table's columns.
FACTS = ("dataset", "scan", "head", "contrast", "field", "draw")


@dataclass(frozen=True)
class Case:
    """One scan, its truth as far as it is known, and a further known field to inject.

    Attributes
    ----------
    data, valid : arrays (I, J, K)
        Acquired intensities (float32), and where they were finite.
    affine : array (4, 4)
    voxel_size_mm : three floats
    brain : boolean array, same shape
        Where the field is scored; also the mask that correctors are given, unless ``brain_from`` is 'head'.
    brain_from : 'truth', 'given', 'deepbet', 'template' or 'head'
        Where ``brain`` is from; 'head' is the detected head, for lack of a brain mask.
    log_k : float array, same shape
        A known log field. ``data * exp(log_k)`` is the same scan with that much more bias.
    log_bias : float array, same shape, or None
        The true log bias field.
    dseg : integer array, same shape, or None
        1 GM, 2 WM, 3 CSF.
    facts : mapping
        Values for :data:`FACTS`.
    """

    data: np.ndarray
    valid: np.ndarray
    affine: np.ndarray
    voxel_size_mm: tuple[float, float, float]
    brain: np.ndarray
    brain_from: str
    log_k: np.ndarray
    log_bias: np.ndarray | None = None
    dseg: np.ndarray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def scan(self, masked: bool, data: np.ndarray | None = None) -> Scan:
        """What a corrector is given: the scan, or other intensities on its grid, with the brain mask or without."""
        return Scan(self.data if data is None else data, self.valid, self.brain if masked else None, self.voxel_size_mm)


@dataclass(frozen=True)
class Planned:
    """A case that is known by name and made when its turn comes.

    Attributes
    ----------
    facts : mapping
        Values for :data:`FACTS`.
    made_from : mapping
        All that the case depends on, JSON-serialisable: hashes of files, settings.
    make : callable without arguments that returns the :class:`Case`
    """

    facts: Mapping[str, Any]
    made_from: Mapping[str, Any]
    make: Callable[[], Case]

    @property
    def key(self) -> str:
        """Changes whenever the case would be another."""
        text = json.dumps([dict(self.facts), dict(self.made_from)], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def extra_seed(name: str, seed: int) -> int:
    """The seed of the field injected into a scan of this name: its own, whatever else is in the data set."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
