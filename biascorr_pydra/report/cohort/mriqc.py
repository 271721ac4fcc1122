"""MRIQC's group table, joined to a cohort's scans by their BIDS names."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

from biascorr_pydra.errors import BIDSError
from biascorr_pydra.report.collect import Cohort, Problem, Result
from biascorr_pydra.report.table import MISSING, Column

__all__ = ["MriqcTable", "read_mriqc"]

NAME = "bids_name"
FEW = 5  # scans named in a problem


@dataclass(frozen=True)
class MriqcTable:
    """MRIQC's image quality metrics by scan.

    Attributes
    ----------
    keys : names of its columns
    rows : by BIDS name (sub-01_ses-1_T1w) and column: a number where it is one, else a text
    """

    keys: tuple[str, ...]
    rows: dict[str, dict[str, float | str]]

    def value(self, result: Result, key: str) -> float | str | None:
        return self.rows.get(result.name, {}).get(key)

    def columns(self) -> list[Column]:
        """Its columns for metrics.tsv, each named ``mriqc_`` and its own name."""
        return [self._column(key) for key in self.keys]

    def _column(self, key: str) -> Column:
        entry = {
            "LongName": f"MRIQC's {key}",
            "Description": "As in MRIQC's group table, of the acquired image; https://mriqc.readthedocs.io defines it.",
        }
        return Column(f"mriqc_{re.sub(r'[^0-9A-Za-z]+', '_', key)}", entry, lambda result: self.value(result, key))

    def numbers(self) -> list[str]:
        """Columns that hold numbers."""
        return [key for key in self.keys if any(isinstance(row.get(key), float) for row in self.rows.values())]

    def problems(self, cohort: Cohort) -> list[Problem]:
        """What is on one side only."""
        names = {result.name for result in cohort.results}
        problems = []
        for missing, text in (
            (sorted(names - set(self.rows)), "not in MRIQC's table"),
            (sorted(set(self.rows) - names), "in MRIQC's table, not among these scans"),
        ):
            if missing:
                rest = f" and {len(missing) - FEW} more" if len(missing) > FEW else ""
                problems.append(Problem("MRIQC's table", f"{len(missing)} {text}: {', '.join(missing[:FEW])}{rest}"))
        return problems


def read_mriqc(file: str | Path) -> MriqcTable:
    """Read a group table of MRIQC, such as group_T1w.tsv.

    Raises
    ------
    BIDSError
        It cannot be read, or has no column bids_name.
    """
    advice = "Give MRIQC's group_T1w.tsv (or of another contrast)."
    try:
        text = Path(file).read_text("utf-8-sig", errors="replace")
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", restval=MISSING)
        lines = list(reader)
    except (OSError, csv.Error) as error:
        raise BIDSError("not readable as a table", file=file, value=error, next_step=advice) from error
    names = [name for name in reader.fieldnames or () if name]
    if NAME not in names:
        value = ", ".join(names[:8])
        raise BIDSError("MRIQC's group table has a column bids_name", file=file, value=value, next_step=advice)
    keys = tuple(name for name in names if name != NAME)
    return MriqcTable(keys, {line[NAME].strip(): {key: _value(line[key]) for key in keys} for line in lines})


def _value(text: str) -> float | str:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return " ".join(str(text).split()) or MISSING
    return number if math.isfinite(number) else MISSING
