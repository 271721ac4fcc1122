"""What readers have rated: a scan accepted or excluded, or a note on it.

The pages keep ratings in the reader's browser and save them as a table; ``biascorr report --ratings FILE`` reads it and
keeps it as ``OUT/reports/ratings.tsv``, which later reports read. A scan that was excluded is left out of everything
that compares or adds up.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biascorr_pydra.bids import make_folder
from biascorr_pydra.errors import BIDSError, OutputError
from biascorr_pydra.images.files import write_text
from biascorr_pydra.lock import FOLDER

from .collect import Cohort, Problem
from .paths import RATINGS_TABLE
from .table import MISSING, Column

__all__ = [
    "ACCEPT",
    "COLUMNS",
    "EXCLUDE",
    "Rating",
    "Ratings",
    "kept_ratings",
    "rating_columns",
    "read_ratings",
    "store_of",
]

ACCEPT, EXCLUDE = "accept", "exclude"
FEW = 5  # scans named in a problem
_LEVELS = {ACCEPT: "to be used", EXCLUDE: "left out of comparisons, summaries and plots"}
#: The table's columns; "note" and "rated" may be absent.
COLUMNS: dict[str, dict[str, Any]] = {
    "scan": {
        "Description": "Source image, relative to its data set; in a study of several with the data set's folder first."
    },
    "rating": {"Description": "What a reader decided; n/a where there is only a note.", "Levels": _LEVELS},
    "note": {"Description": "What a reader wrote."},
    "rated": {"Description": "When, in UTC."},
}


@dataclass(frozen=True)
class Rating:
    """What was decided on one scan: ACCEPT, EXCLUDE or None; what was written; when."""

    rating: str | None = None
    note: str = ""
    rated: str = ""

    def as_row(self) -> dict[str, str]:
        """The cells beside "scan"; "" where there is nothing."""
        return {"rating": self.rating or "", "note": self.note, "rated": self.rated}


@dataclass(frozen=True)
class Ratings:
    """Ratings by place: the scan's name in the whole study."""

    by_place: Mapping[str, Rating] = field(default_factory=dict)

    def excluded(self, place: str) -> bool:
        """Whether a scan is to be left out."""
        return self.by_place.get(place, Rating()).rating == EXCLUDE

    def problems(self, cohort: Cohort) -> list[Problem]:
        """Rated scans that are not in the cohort.

        Raises
        ------
        BIDSError
            None of them is: the ratings are of another data set.
        """
        unknown = sorted(set(self.by_place) - set(cohort.by_scan()))
        if not unknown:
            return []
        if len(unknown) == len(self.by_place) and cohort.results:
            advice = f"Its scans are named as {cohort.results[0].place} is. Save the ratings from this cohort's page."
            raise BIDSError("none of the rated scans is in this cohort", value=unknown[0], next_step=advice)
        rest = f" and {len(unknown) - FEW} more" if len(unknown) > FEW else ""
        text = f"{len(unknown)} rated, not among these scans: {', '.join(unknown[:FEW])}{rest}"
        return [Problem("the table of ratings", text)]


def read_ratings(file: str | Path) -> Ratings:
    """Read a table of ratings, tab-separated, as the cohort's page saves it.

    Raises
    ------
    BIDSError
        It cannot be read, lacks a column, or a line has no scan, no known rating, or a scan that was rated otherwise.
    """
    advice = "Save the ratings from the cohort's page, or give a table with the columns scan and rating."
    try:
        text = Path(file).read_text("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", restval="", quoting=csv.QUOTE_NONE)
        lines = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise BIDSError("not readable as a table of ratings", file=file, value=error, next_step=advice) from error
    names = [name for name in reader.fieldnames or () if name]
    absent = [name for name in ("scan", "rating") if name not in names]
    if absent:
        value = ", ".join(names[:8]) or "an empty file"
        rule = f"a table of ratings has the columns scan and rating; {' and '.join(absent)} is not in it"
        raise BIDSError(rule, file=file, value=value, next_step=advice)
    by_place: dict[str, Rating] = {}
    for number, line in enumerate(lines, start=2):
        place, rating = _line(line, number, file)
        if by_place.get(place, rating).rating != rating.rating:
            advice = "Keep one of the lines."
            raise BIDSError(
                f"line {number}: the scan is rated otherwise above", file=file, value=place, next_step=advice
            )
        by_place[place] = rating
    return Ratings(by_place)


def _line(line: Mapping[str, str], number: int, file: str | Path) -> tuple[str, Rating]:
    place, word, note, rated = (_cell(line.get(name)) for name in COLUMNS)
    if not place:
        raise BIDSError(f"line {number}: no scan is named", file=file, next_step="Name it, or remove the line.")
    if word not in ("", ACCEPT, EXCLUDE):
        advice = f"Write {ACCEPT}, {EXCLUDE} or {MISSING}."
        raise BIDSError(f"line {number}: not a rating of {place}", file=file, value=repr(word), next_step=advice)
    return place, Rating(word or None, note, rated)


def _cell(text: str | None) -> str:
    text = (text or "").strip()
    return "" if text == MISSING else text


def kept_ratings(out_dir: Path) -> tuple[Ratings, list[Problem]]:
    """The ratings that an earlier report was given; what is wrong with them stops no report."""
    path = out_dir / RATINGS_TABLE
    if not path.is_file():
        return Ratings(), []
    try:
        return read_ratings(path), []
    except BIDSError as error:
        text = f"not used, so that no scan is left out: {error.message.removeprefix(f'{path}: ')}"
        return Ratings(), [Problem(RATINGS_TABLE, text)]


def rating_columns(ratings: Ratings) -> list[Column]:
    """Its columns for metrics.tsv; none where nothing is rated."""
    if not ratings.by_place:
        return []
    parts = {"rating": "rating", "rating_note": "note"}
    return [_column(ratings, name, part) for name, part in parts.items()]


def _column(ratings: Ratings, name: str, part: str) -> Column:
    entry = {"LongName": f"Readers' {part}", **COLUMNS[part]}
    return Column(name, entry, lambda result: getattr(ratings.by_place.get(result.place, Rating()), part))


def store_of(root: Path) -> str:
    """By what the pages of one output folder know their ratings in a browser; made once, and kept with the folder."""
    path = root / FOLDER / "ratings.json"
    try:
        known = json.loads(path.read_text())["store"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if isinstance(known, str) and known.isalnum():
        return known
    made = uuid.uuid4().hex
    try:
        make_folder(path.parent)
        write_text(path, json.dumps({"store": made}))
    except OutputError:  # then each report has another, and ratings are to be saved before the next
        pass
    return made
