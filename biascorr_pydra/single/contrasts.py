"""The contrasts that an image's page can be told of: BIDS suffixes of anatomical images."""

from __future__ import annotations

from biascorr_pydra.anatomy.contrast import CONTRAST_ORDER
from biascorr_pydra.bids import ANATOMICAL_SUFFIXES
from biascorr_pydra.errors import InvalidParameterError

__all__ = ["KNOWN", "check_suffix"]

KNOWN = tuple(dict.fromkeys((*CONTRAST_ORDER, *ANATOMICAL_SUFFIXES)))


def check_suffix(suffix: str | None) -> None:
    """Refuse a suffix that was given and names no contrast.

    Raises
    ------
    InvalidParameterError
    """
    if suffix is not None and suffix not in KNOWN:
        raise InvalidParameterError(
            "option suffix is a contrast as BIDS names it",
            value=repr(suffix),
            next_step=f"Give one of {', '.join(KNOWN)}.",
        )
