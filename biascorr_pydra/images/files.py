"""Files on disk: their hashes, and writing them so that nothing is lost and nothing is half-written."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from biascorr_pydra.errors import OutputError, OutputExistsError

__all__ = [
    "SUFFIXES",
    "Hashes",
    "check_output",
    "check_writable",
    "sha256",
    "write_all",
    "write_atomic",
    "write_bytes",
    "write_json",
    "write_text",
]

SUFFIXES = (".nii.gz", ".nii")


def sha256(file: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Hashes:
    """SHA-256 of many files, kept in a JSON file between runs so that only changed files are read again.

    A hash is believed while the file's size, inode, and times of modification and of status change are the same. The
    last cannot be set by a program: a file that was put back with its old time is still seen as changed. Files that
    changed within the last seconds are not kept, for a second change in the same instant would not show.
    """

    SETTLED_NS = 2_000_000_000

    def __init__(self, store: Path):
        self._store = store
        self._kept: dict[str, list] = self._read()
        self._new = False

    def sha256(self, file: Path) -> str:
        """Hex SHA-256 of a file's bytes, from the store or from the file."""
        found = file.stat()
        seen = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
        kept = self._kept.get(str(file))
        if kept and kept[0] == seen:
            return kept[1]
        digest = sha256(file)
        self._kept.pop(str(file), None)
        if time.time_ns() - max(seen[2:]) > self.SETTLED_NS:
            self._kept[str(file)] = [seen, digest]
            self._new = True
        return digest

    def keep(self) -> None:
        """Write what is new, for the next run."""
        if self._new:
            write_text(self._store, json.dumps(self._kept, indent=0))
            self._new = False

    def _read(self) -> dict[str, list]:
        try:
            found = json.loads(self._store.read_text())
            return {path: [list(seen), str(digest)] for path, (seen, digest) in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def check_output(file: str | Path, *, inputs=(), overwrite: bool = False, suffixes=SUFFIXES) -> Path:
    """Refuse, before any work, an output that cannot or must not be written.

    Raises
    ------
    OutputExistsError
        The file exists and ``overwrite`` is false.
    OutputError
        It is one of ``inputs``, its name has none of ``suffixes``, or its folder is missing or not writable.
    """
    path = Path(file)
    if not path.name.endswith(suffixes):
        raise OutputError(f"its name must end in {' or '.join(suffixes)}", file=path, next_step="Change the suffix.")
    if any(source is not None and path.resolve() == Path(source).resolve() for source in inputs):
        raise OutputError("output and input are the same file", file=path, next_step="Give the output another name.")
    if not path.parent.is_dir():
        raise OutputError("the output folder does not exist", file=path.parent, next_step="Create it first.")
    if path.exists() and not overwrite:
        raise OutputExistsError(
            "the output exists", file=path, next_step="Remove it, choose another name, or ask to overwrite it."
        )
    check_writable(path.parent)
    return path


def check_writable(folder: Path) -> None:
    """Raise OutputError if no file can be made in this folder."""
    if not os.access(folder, os.W_OK):
        raise OutputError("the output folder is not writable", file=folder, next_step="Check its permissions.")


def write_atomic(file: str | Path, write: Callable) -> None:
    """Call ``write(binary stream)`` on a temporary file in the same folder, then rename it to ``file``.

    Raises
    ------
    OutputError
        Naming the file and the system's reason (no space, no permission ...); nothing is left behind.
    """
    _write_then_rename({Path(file): write})


def write_bytes(file: str | Path, content: bytes) -> None:
    """Write a file whole or not at all; raises as :func:`write_atomic` does."""
    write_all({file: content})


def write_text(file: str | Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; file names that are not valid Unicode are shown escaped in it."""
    write_bytes(file, text.encode("utf-8", "backslashreplace"))


def write_json(file: str | Path, value: Any) -> None:
    """Write a value as JSON with an indent of 2 and a newline at the end, whole or not at all.

    What JSON has no form for (a path, a NumPy number) is written as its ``str``.
    """
    write_text(file, json.dumps(value, indent=2, default=str) + "\n")


def write_all(contents: Mapping[str | Path, bytes]) -> None:
    """Write several files, all of them or none: they are renamed to their names when the last is complete.

    Raises
    ------
    OutputError
    """
    _write_then_rename({Path(file): partial(_put, content) for file, content in contents.items()})


def _put(content: bytes, stream) -> None:
    stream.write(content)


def _write_then_rename(writers: Mapping[Path, Callable]) -> None:
    temporaries = {path: path.with_name(f".{secrets.token_hex(6)}.{path.name}"[:255]) for path in writers}
    path = None
    try:
        for path, write in writers.items():
            with open(temporaries[path], "xb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            "cannot be written", file=path, value=error.strerror or str(error), next_step="Check space and permissions."
        ) from error
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
