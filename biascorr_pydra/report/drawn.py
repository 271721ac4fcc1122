"""Pictures that were drawn before, kept in OUT/.biascorr/pictures: a page is made again without opening an image.

The pictures of a scan are known by the results they show: the metrics files as they are, and which of their images are
there with which size and time. Where any of it has changed, the scan is drawn anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..image import write_atomic
from ..runs import FOLDER
from .collect import Result

__all__ = ["keep", "kept", "name_of"]

VERSION = 1  # changes when the same results would be drawn differently


def name_of(scan: str, results: Sequence[Result]) -> str:
    """A name for the pictures of these results; another one when any of them changes."""
    shown = []
    for result in results:
        files = {}
        for kind, path in sorted(result.files.items()):
            found = path.stat()
            files[kind] = [path.name, found.st_size, found.st_mtime_ns]
        shown.append([result.method, result.state == "failed", result.reason, files, result.record.get("work")])
    text = json.dumps([VERSION, scan, shown], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def kept(root: Path, name: str) -> dict[str, Any] | None:
    """What was kept under this name, or None."""
    try:
        found = json.loads(_path(root, name).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def keep(root: Path, name: str, content: dict[str, Any]) -> None:
    """Keep what was drawn; a folder that cannot be written to only means drawing it again."""
    path = _path(root, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda stream: stream.write(json.dumps(content).encode("utf-8", "backslashreplace")))
    except (OSError, OutputError):
        return


def _path(root: Path, name: str) -> Path:
    return root / FOLDER / "pictures" / name[:2] / f"{name}.json"
