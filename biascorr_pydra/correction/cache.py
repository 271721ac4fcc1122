"""Fields that were estimated ahead of the corrections that need them, as many as were given room for."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from contextvars import ContextVar, Token

import numpy as np

from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan

__all__ = ["EstimateCache", "key_of"]

MOST = 64
MOST_BYTES = 1 << 30


class EstimateCache:
    """Estimates by everything that they were made from; corrections inside its ``with`` block find them here.

    Made by whoever lets a batch be estimated, and gone with it: what a correction did not ask for is dropped when the
    block ends. It never holds more than it has room for, also not while it is filled: what does not fit is not kept,
    and is estimated in its own turn.

    Parameters
    ----------
    most : int
        Estimates.
    most_bytes : int
        Bytes of their fields and masks.

    Examples
    --------
    >>> with EstimateCache(most=2) as cache:
    ...     EstimateCache.current() is cache
    True
    >>> EstimateCache.current() is None
    True
    """

    _current: ContextVar[EstimateCache | None] = ContextVar("estimate_cache", default=None)

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES):
        self.most, self.most_bytes = most, most_bytes
        self.n_bytes = 0
        self._estimates: OrderedDict[bytes, Estimate] = OrderedDict()
        self._entered: list[Token[EstimateCache | None]] = []

    def __enter__(self) -> EstimateCache:
        self._entered.append(self._current.set(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._current.reset(self._entered.pop())
        self._estimates.clear()
        self.n_bytes = 0

    @classmethod
    def current(cls) -> EstimateCache | None:
        """The cache whose block this runs in, if any."""
        return cls._current.get()

    def __len__(self) -> int:
        return len(self._estimates)

    @property
    def room(self) -> int:
        """How many more estimates it may hold, if they are small."""
        return self.most - len(self) if self.n_bytes < self.most_bytes else 0

    def put(self, key: bytes, estimate: Estimate) -> bool:
        """Keep an estimate; False, and nothing changes, where there is no room for it."""
        if key in self._estimates:
            return True
        size = _size(estimate)
        if len(self) >= self.most or self.n_bytes + size > self.most_bytes:
            return False
        self._estimates[key] = estimate
        self.n_bytes += size
        return True

    def take(self, key: bytes) -> Estimate | None:
        """The estimate of that key, which is given away only once."""
        estimate = self._estimates.pop(key, None)
        if estimate is not None:
            self.n_bytes -= _size(estimate)
        return estimate


def key_of(corrector: Corrector, scan: Scan, device: str, seed: int) -> bytes:
    """A name for an estimate: a hash of everything that it is made from."""
    digest = hashlib.blake2b(repr((corrector, scan.voxel_size_mm, device, seed)).encode(), digest_size=16)
    for array in (scan.data, scan.valid, scan.mask, scan.weight):
        digest.update(b"none" if array is None else np.ascontiguousarray(array).data)
    return digest.digest()


def _size(estimate: Estimate) -> int:
    """Bytes of an estimate's arrays."""
    field = estimate.log_bias
    field_bytes = field.nbytes if isinstance(field, np.ndarray) else field.control_points.nbytes
    return field_bytes + (0 if estimate.brain is None else estimate.brain.nbytes)
