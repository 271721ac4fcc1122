"""Files on disk: their hashes, and writing them so that nothing is lost and nothing is half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from biascorr_pydra.errors import OutputError, OutputExistsError

__all__ = [
    "SUFFIXES",
    "Hashes",
    "check_output",
    "check_writable",
    "is_temporary",
    "remove",
    "sha256",
    "write_all",
    "write_atomic",
    "write_bytes",
    "write_json",
    "write_text",
]

SUFFIXES = (".nii.gz", ".nii")
_TEMPORARY = re.compile(r"^\.[0-9a-f]{12}\.")


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
        self._kept = self._read()
        self._new = False

    def sha256(self, file: Path) -> str:
        """Hex SHA-256 of a file's bytes, from the store or from the file."""
        status = file.stat()
        state = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        kept = self._kept.get(str(file))
        if kept and kept[0] == state:
            return kept[1]
        digest = sha256(file)
        self._kept.pop(str(file), None)
        if time.time_ns() - max(state[2:]) > self.SETTLED_NS:
            self._kept[str(file)] = (state, digest)
            self._new = True
        return digest

    def keep(self) -> None:
        """Write what is new, for the next run."""
        if self._new:
            write_text(self._store, json.dumps(self._kept, indent=0))
            self._new = False

    def _read(self) -> dict[str, tuple[list[int], str]]:
        try:
            stored = json.loads(self._store.read_text())
            return {path: (list(state), str(digest)) for path, (state, digest) in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def check_output(
    file: str | Path,
    *,
    inputs: Iterable[str | Path | None] = (),
    overwrite: bool = False,
    suffixes: tuple[str, ...] = SUFFIXES,
) -> Path:
    """Refuse, before any work, an output that cannot or must not be written.

    Raises
    ------
    OutputExistsError
        The file exists and ``overwrite`` is false.
    OutputError
        It is one of ``inputs``, its name has none of ``suffixes``, it is a folder, or its own folder is missing or
        not writable.
    """
    path = Path(file)
    if not path.name.endswith(suffixes):
        raise OutputError(f"its name must end in {' or '.join(suffixes)}", file=path, next_step="Change the suffix.")
    if any(source is not None and path.resolve() == Path(source).resolve() for source in inputs):
        raise OutputError("output and input are the same file", file=path, next_step="Give the output another name.")
    if not path.parent.is_dir():
        raise OutputError("the output folder does not exist", file=path.parent, next_step="Create it first.")
    if path.is_dir():
        raise OutputError("the output is a folder", file=path, next_step="Give the output another name.")
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


def write_atomic(file: str | Path, write: Callable[[BinaryIO], object]) -> None:
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
    """Write several files, all of them or none.

    They take their names when the last is complete. If one cannot take its name, those that have taken theirs go, and
    what stood there before comes back. A process that is killed in between leaves each file old or new, none of them
    half-written.

    Raises
    ------
    OutputError
        Naming the file and the system's reason.
    """
    _write_then_rename({Path(file): partial(_put, content) for file, content in contents.items()})


def _put(content: bytes, stream: BinaryIO) -> None:
    stream.write(content)


def _write_then_rename(writers: Mapping[Path, Callable[[BinaryIO], object]]) -> None:
    temporaries = {path: _beside(path) for path in writers}
    for path in writers:
        with _naming(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    try:
        for path, write in writers.items():
            with _naming(path), open(temporaries[path], "xb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
        _rename_all(temporaries)
    finally:
        _remove(temporaries.values())


def _rename_all(temporaries: Mapping[Path, Path]) -> None:
    """Give complete files their names: all of them or, after an error, none."""
    old: dict[Path, Path] = {}
    renamed: list[Path] = []
    try:
        if len(temporaries) > 1:
            for path in filter(os.path.lexists, temporaries):
                with _naming(path):
                    old[path] = _beside(path)
                    _keep_aside(path, old[path])
        for path, temporary in temporaries.items():
            with _naming(path):
                os.replace(temporary, path)
            renamed.append(path)
    except BaseException:
        _put_back(renamed, old)
        raise
    finally:
        _remove(old.values())


def _keep_aside(path: Path, aside: Path) -> None:
    """A second name for a file, so that the first can be taken without losing it."""
    try:
        os.link(path, aside, follow_symlinks=False)
    except OSError:  # a file system without hard links, or a file of another user
        shutil.copy2(path, aside, follow_symlinks=False)


def _put_back(renamed: Sequence[Path], old: dict[Path, Path]) -> None:
    """Undo renames. Where an old file cannot be put back, it stays aside, and its name is told."""
    stuck: dict[Path, OSError] = {}
    for path in reversed(renamed):
        aside = old.get(path)
        try:
            if aside is None:
                path.unlink(missing_ok=True)
            else:
                os.replace(aside, path)
        except OSError as error:
            stuck[path] = error
            old.pop(path, None)
    for path, reason in stuck.items():
        raise OutputError(
            "is new while files written with it are not, and could not be undone",
            file=path,
            value=reason.strerror or str(reason),
            next_step=f"What was there before, if anything, is beside it as a hidden file that ends in {path.name}.",
        ) from reason


def is_temporary(name: str) -> bool:
    """Whether a file's name is one under which a file is being written, or was when a process was killed."""
    return _TEMPORARY.match(name) is not None


def _beside(path: Path) -> Path:
    """A temporary name in the same folder, as :func:`is_temporary` knows it."""
    return path.with_name(f".{secrets.token_hex(6)}.{path.name}"[:255])


def remove(file: str | Path) -> None:
    """Remove a file, if it is there.

    Raises
    ------
    OutputError
        Naming the file and the system's reason.
    """
    path = Path(file)
    with _naming(path, "cannot be removed"):
        path.unlink(missing_ok=True)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path, rule: str = "cannot be written") -> Iterator[None]:
    """What the system refuses becomes an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            rule, file=path, value=error.strerror or str(error), next_step="Check space and permissions."
        ) from error
