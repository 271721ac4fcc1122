"""The fields of several files estimated at once, ahead of the corrections of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from biascorr_pydra.errors import BiasCorrError
from biascorr_pydra.images import nifti
from biascorr_pydra.methods.corrector import Corrector, Scan

from .cache import EstimateCache
from .case import make_case
from .estimate import estimate_ahead, scan_on_grid
from .options import CorrectionOptions

__all__ = ["estimate_together"]

#: Options that an estimate depends on.
ESTIMATED_BY = ("method", "preset", "options", "device", "seed", "average_frames")


def estimate_together(requests: Sequence[Mapping[str, Any]]) -> EstimateCache:
    """Estimate the fields of several files at once, for a ``correct_file`` of each that follows in this process.

    Parameters
    ----------
    requests : arguments of :func:`biascorr_pydra.correct_file` by name
        Only the files that are read, and what the estimate depends on, are looked at.

    Returns
    -------
    EstimateCache
        The corrections find their fields inside its ``with`` block.

    Notes
    -----
    Worth it on a GPU. A file that cannot be read or corrected is left out: its own correction says why.
    """
    cache = EstimateCache()
    for (corrector, device, seed), scans in _by_corrector(requests).items():
        try:
            estimate_ahead(corrector, scans, cache, device=device, seed=seed)
        except BiasCorrError:
            continue  # one of them; each has its turn
    return cache


def _by_corrector(requests: Sequence[Mapping[str, Any]]) -> dict[tuple[Corrector, str, int], list[Scan]]:
    """The scans that can be estimated, in groups of those that one corrector takes."""
    groups: dict[tuple[Corrector, str, int], list[Scan]] = {}
    for request in requests:
        try:
            options = CorrectionOptions(**{name: request[name] for name in ESTIMATED_BY if name in request})
            img = nifti.load(request["in_file"])
            case = make_case(img, options, mask=request.get("mask_file"), weight=request.get("weight_file"))
        except BiasCorrError:
            continue
        group = groups.setdefault((case.corrector, case.device, options.seed), [])
        group.append(scan_on_grid(case.corrector, img.affine, case.scan))
    return groups
