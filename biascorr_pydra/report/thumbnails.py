"""The small pictures in the list of scans to look at: part of the page, which loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from biascorr_pydra.report.cohort.flags import SHOWN, Flag, Thumbnail
from biascorr_pydra.report.scan import thumbnail

from .paths import PAGES

__all__ = ["thumbnails"]

MOST_BYTES = 6_000_000  # of all pictures; some 5 kB each


def thumbnails(flags: Sequence[Flag]) -> dict[str, Thumbnail]:
    """Of the scans that are listed, by place, as drawn for their own pages: of the method with the gravest reason."""
    shown: dict[str, Thumbnail] = {}
    total = 0
    for flag in flags[:SHOWN]:
        methods = [reason.method for reason in flag.reasons if reason.method]
        results = sorted(flag.results, key=lambda r: methods.index(r.method) if r.method in methods else len(methods))
        for result in results:
            picture = thumbnail(result)
            if picture is None:
                continue
            content = (result.root / PAGES / picture.file).read_bytes()
            total += len(content)
            if total > MOST_BYTES:
                return shown
            source = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
            shown[flag.place] = Thumbnail(source, picture.width, picture.height, picture.alt)
            break
    return shown
