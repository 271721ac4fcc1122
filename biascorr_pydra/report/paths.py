"""Where a scan's page is: the one owner of its name, for those who write it and those who link to it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

__all__ = ["PAGES", "RATINGS_TABLE", "figures_folder", "page_name", "scan_page"]

PAGES = "reports"  # as fMRIPrep has its pages beside the derivatives; its pictures are in `figures` below it
RATINGS_TABLE = f"{PAGES}/ratings.tsv"

_BIDS_NAME = re.compile(r"^sub-[A-Za-z0-9]+(?:_[A-Za-z0-9]+-[A-Za-z0-9]+)*_[A-Za-z0-9]+$")


def page_name(scan: str) -> str:
    """Name of a scan's page, without extension: that of its image, which in BIDS is unique in a data set.

    Whatever is no BIDS name is spelled in letters that are safe in file names and links, with a hash of the scan's
    whole path, so that two scans never share a page.
    """
    name = re.sub(r"\.nii(\.gz)?$", "", scan.rsplit("/", 1)[-1])
    if _BIDS_NAME.match(name):
        return name
    safe = re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_")[:80]
    return f"{safe}_{hashlib.sha256(scan.encode('utf-8', 'backslashreplace')).hexdigest()[:12]}"


def scan_page(out_dir: str | Path, scan: str) -> Path:
    """The page of a scan, ``OUT/reports/NAME.html``; ``scan`` is the source image's path in its data set."""
    return Path(out_dir) / PAGES / f"{page_name(scan)}.html"


def figures_folder(out_dir: str | Path) -> Path:
    """Where the pictures of all scans' pages are."""
    return Path(out_dir) / PAGES / "figures"
