"""The table of measured rows on disk: kept from run to run, whole at any time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images.files import write_text

from .case import FACTS
from .columns import columns

__all__ = ["Rows", "write_table"]

TEXT = (
    *FACTS[:-1],
    "brain",
    "method",
    "mask",
    "implementation",
    "kind",
    "judge",
    "undefined",
    "error",
    "case_key",
    "method_key",
)
EMPTY_AS_TEXT = ("undefined", "error", "kind", "judge", "brain")
MISSING = "n/a"
IDENTITY = (*FACTS, "method", "mask")


class Rows:
    """Rows by case, method and mask; one of each.

    Parameters
    ----------
    file : bench.tsv; read if it is there, unless ``anew``

    Raises
    ------
    InvalidParameterError
        The file is not such a table.
    """

    def __init__(self, file: Path, *, anew: bool = False):
        self.file = file
        self._rows: dict[tuple, dict[str, Any]] = {}
        if file.exists() and not anew:
            for row in _read(file):
                self.put(row)

    def put(self, row: Mapping[str, Any]) -> None:
        """Add a row, or replace that of the same case, method and mask."""
        known = {name: row.get(name) for name in columns()}
        self._rows[_identity(row)] = known | {name: known[name] or "" for name in EMPTY_AS_TEXT}

    def discard(self, facts: Mapping[str, Any], method: str, mask: str) -> None:
        """Take out the row of this case, method and mask, if there is one."""
        self._rows.pop(_identity({**facts, "method": method, "mask": mask}), None)

    def measured(self, facts: Mapping[str, Any], method: str, mask: str, keys: tuple[str, str]) -> dict | None:
        """The row of this case, method and mask if it was measured under these keys, without error."""
        row = self._rows.get(_identity({**facts, "method": method, "mask": mask}))
        good = row is not None and (row["case_key"], row["method_key"]) == keys and not row["error"]
        return row if good else None

    def drop_stale(self, keys: Mapping[tuple, str]) -> int:
        """Drop rows of cases that have become others (facts -> key as they are now); how many there were."""
        stale = [
            name for name, row in self._rows.items() if keys.get(name[: len(FACTS)], row["case_key"]) != row["case_key"]
        ]
        for name in stale:
            del self._rows[name]
        return len(stale)

    def frame(self) -> pd.DataFrame:
        """All rows, in an order that does not depend on when they were measured."""
        rows = [self._rows[name] for name in sorted(self._rows, key=str)]
        return pd.DataFrame(rows, columns=list(columns()))

    def write(self) -> None:
        write_table(self.frame(), self.file)


def _identity(row: Mapping[str, Any]) -> tuple:
    return tuple(int(row[name]) if name == "draw" else str(row[name]) for name in IDENTITY)


def _read(file: Path) -> Iterable[dict[str, Any]]:
    try:
        table = pd.read_csv(
            file, sep="\t", na_values=[MISSING], keep_default_na=False, dtype=dict.fromkeys(TEXT, str), quoting=3
        )
    except (ValueError, OSError) as error:
        raise InvalidParameterError(
            "not a table of `biascorr bench`",
            value=f"{file} ({error})",
            next_step="Give another --out, or --overwrite.",
        ) from error
    if list(table.columns) != list(columns()):
        raise InvalidParameterError(
            "not a table of this version of `biascorr bench`",
            value=str(file),
            next_step="Give another --out, or --overwrite.",
        )
    yield from table.astype(object).where(table.notna(), None).to_dict("records")


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Tab-separated, n/a for what is missing, without quotes: tabs and line ends inside texts become spaces."""
    text = io.StringIO()
    text.write("\t".join(table.columns) + "\n")
    for row in table.itertuples(index=False):
        text.write("\t".join(map(_cell, row)) + "\n")
    write_text(file, text.getvalue())


def _cell(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return MISSING
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return str(int(value))
    return repr(value) if isinstance(value, float) else " ".join(str(value).split())
