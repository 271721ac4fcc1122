"""The order of the tissues' intensities, which the contrast decides."""

from __future__ import annotations

__all__ = ["CONTRAST_ORDER"]

_T1W, _T2W = ("CSF", "GM", "WM"), ("WM", "GM", "CSF")
#: BIDS suffix -> tissues from the darkest to the brightest. PDw is left out because CSF and gray matter overlap in it,
#: T2starw and PDT2 because the order depends on the echo times.
CONTRAST_ORDER = {
    "T1w": _T1W,
    "UNIT1": _T1W,
    "MPRAGE": _T1W,
    "inplaneT1": _T1W,
    "T2w": _T2W,
    "inplaneT2": _T2W,
    "FLAIR": ("CSF", "WM", "GM"),
}
