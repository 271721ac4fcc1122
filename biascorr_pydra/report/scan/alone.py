"""The page of a scan that belongs to no cohort: one file, with its pictures inside."""

from __future__ import annotations

import base64

from biascorr_pydra.report.collect import Result

from .order import PageOrder
from .page import render
from .pictures import draw

__all__ = ["page_of_one"]

KINDS = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


def page_of_one(result: Result) -> str:
    """The page of one correction as HTML; nothing is written.

    Parameters
    ----------
    result : Result
        With the paths of its images; what cannot be read or drawn is said on the page.
    """
    pictures = draw(result.root, result.scan, result.name, [result], keep=_inside)
    html, _ = render(PageOrder(result.root, "", result.scan, [result], {}, {}), pictures)
    return html


def _inside(desc: str, kind: str, content: bytes) -> str:
    """A picture as an address that holds it."""
    return f"data:{KINDS[kind]};base64,{base64.b64encode(content).decode()}"
