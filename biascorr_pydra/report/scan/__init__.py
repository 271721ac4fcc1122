"""One page for each scan, ``OUT/reports/NAME.html``, as fMRIPrep and MRIQC have one for each subject.

The look and the order of things are nireports' conventions; its code is not used. Measured with nireports 26 on a
192 x 256 x 256 head: its flicker of before and after took 35 s and 4.6 MB, its contours 20 s and 2.6 MB, where a whole
page here takes a few seconds and about 1 MB; its template loads scripts from other sites, which a report of patients'
images must not do, and does not escape what it is given.

A page is made again only where something that it shows has changed; its pictures only where the images have.
"""

from __future__ import annotations

from .alone import page_of_one
from .write import ScanPages, thumbnail, write_scan_pages

__all__ = ["ScanPages", "page_of_one", "thumbnail", "write_scan_pages"]
