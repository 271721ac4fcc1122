"""A bias field that is the exponential of a polynomial: an example of a method that comes in a package of its own.

The logarithm of the field is a polynomial in the three voxel axes. Its differences from each voxel to the next are
fitted to those of the log intensities (least squares), where these are small enough to be within one tissue. Good
enough for an example and for phantoms; for heads, n4 and deepem are better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar

import numpy as np

from biascorr_pydra.errors import InvalidMaskError, InvalidParameterError
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.methods import Corrector, Estimate, Reference, Scan

MOST_DEGREE = 4


@dataclass(frozen=True)
class Polynomial(Corrector):
    """The polynomial whose slopes are those within tissues. Its fields are its parameters, each with a help text."""

    degree: int = field(default=2, metadata={"help": "Degree of the polynomial, 1 to 4."})
    sample_mm: float = field(default=4.0, metadata={"help": "About how far apart the voxels used are, in mm."})
    edge: float = field(default=0.15, metadata={"help": "Neighbours whose logs differ by more are of two tissues."})

    # What listings, caches, reports and schedulers want to know; see biascorr_pydra.methods.Corrector.
    name: ClassVar[str] = "polynomial"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "a polynomial with the slopes found within tissues; an example of a plug-in"
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "polynomial",
            "The biascorr_pydra developers",
            "biascorr_polynomial: an example of a method of biascorr_pydra",
            "Software, version 0.1.0",
            group=True,
        ),
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "plane": {"degree": 1}}
    uses_device: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.degree, bool) or not isinstance(self.degree, int) or not 1 <= self.degree <= MOST_DEGREE:
            raise InvalidParameterError(f"degree must be a whole number from 1 to {MOST_DEGREE}", value=self.degree)
        for name in ("sample_mm", "edge"):
            if not getattr(self, name) > 0:
                raise InvalidParameterError(f"{name} must be positive", value=getattr(self, name))

    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        """Fit the polynomial. Neither ``device`` nor ``seed`` changes anything.

        Raises
        ------
        InvalidMaskError
            The mask holds fewer pairs of neighbours within a tissue than the polynomial has terms.
        """
        mask = detect_head(scan.data) if scan.mask is None else scan.mask
        thinned = tuple(slice(None, None, max(1, round(self.sample_mm / size))) for size in scan.voxel_size_mm)
        used = (mask & scan.valid & (scan.data > 0))[thinned]
        log_image = np.log(np.where(used, scan.data[thinned], 1).astype(float))
        terms, slopes = self._slopes(scan.data.shape, thinned, log_image, used)
        if len(terms) < terms.shape[1]:
            raise InvalidMaskError(
                "the mask must hold more pairs of neighbours within a tissue than the polynomial has terms",
                value=f"{len(terms)} pairs, {terms.shape[1]} terms",
                next_step="Check the mask, or lower sample_mm or degree.",
            )
        coefficients = np.linalg.lstsq(terms, slopes, rcond=None)[0]
        log_bias = np.zeros(scan.data.shape, np.float32)
        everywhere = (slice(None),) * 3
        for coefficient, term in zip(coefficients, self._terms(scan.data.shape, everywhere), strict=True):
            log_bias += (coefficient * term).astype(np.float32)
        return Estimate(log_bias, {"n_pairs_used": len(terms), "coefficients": coefficients.round(6).tolist()})

    def _slopes(
        self, shape: tuple[int, ...], voxels: tuple[slice, ...], log_image: np.ndarray, used: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Differences of the terms (pairs, terms) and of the log image (pairs) between neighbours within a tissue."""
        terms = [np.broadcast_to(term, used.shape) for term in self._terms(shape, voxels)]
        columns, slopes = [], []
        for axis in range(3):
            both = np.minimum(*(np.moveaxis(used, axis, 0)[part] for part in (slice(1, None), slice(-1))))
            slope = np.diff(np.moveaxis(log_image, axis, 0), axis=0)
            pairs = both & (np.abs(slope) < self.edge)
            slopes.append(slope[pairs])
            columns.append(np.stack([np.diff(np.moveaxis(term, axis, 0), axis=0)[pairs] for term in terms], axis=1))
        return np.concatenate(columns), np.concatenate(slopes)

    def _terms(self, shape: tuple[int, ...], voxels: tuple[slice, ...]) -> Iterator[np.ndarray]:
        """The products of powers of the axes, -1 to 1 each, at these voxels; no constant, which is free."""
        x, y, z = np.ix_(*(np.linspace(-1, 1, n)[part] for n, part in zip(shape, voxels, strict=True)))
        for i, j, k in product(range(self.degree + 1), repeat=3):
            if 0 < i + j + k <= self.degree:
                yield x**i * y**j * z**k
