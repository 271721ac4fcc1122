"""Tables that name the site of each participant: a study's phenotypic file, and participants.tsv of a data set.

Whatever does not fit together is reported as a :class:`SiteProblem`, never dropped in silence.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from biascorr_pydra.errors import BIDSError

from .roots import PARTICIPANTS, SiteRoot

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Phenotypes",
    "SiteProblem",
    "participant_key",
    "read_participants",
    "read_phenotypic",
    "same_site",
    "site_key",
]

#: Names of a site column, lower case and without punctuation, the first that is there counts.
SITE_COLUMNS = ("siteid", "site", "sitename", "acquisitionsite", "center", "centre")
ID_COLUMNS = ("subid", "participantid", "subjectid", "fileid")
MISSING = ("", "-9999", "-9999.0", "n/a", "na", "nan", "none", "null", "no_filename")


class SiteProblem(NamedTuple):
    """Something that does not fit together: its kind, where, and what, in words."""

    kind: str
    where: str
    text: str


@dataclass(frozen=True)
class Phenotypes:
    """A study's phenotypic table: the site by participant, and what was wrong with its rows.

    Attributes
    ----------
    sites : dict
        :func:`participant_key` of the id -> site, or None where the table has none or contradicts itself.
    problems : tuple of SiteProblem
    """

    sites: Mapping[str, str | None]
    problems: tuple[SiteProblem, ...] = ()


def participant_key(text: str) -> str:
    """An id as it is compared: sub-0050002, 0050002, 50002, 50002.0 and Pitt_0050002 are the same participant."""
    text = text.strip().removeprefix("sub-")
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    text = re.sub(r"^[A-Za-z_]+\w*_(\d+)$", r"\1", text)
    return text.lstrip("0") or "0" if text.isdecimal() else text


def site_key(text: str) -> str:
    """A site's name as it is compared: MAX_MUN and MaxMun are the same."""
    return re.sub(r"[^A-Z0-9]", "", text.upper())


def same_site(site: str, other: str) -> bool:
    """Whether two names stand for one site: spelled alike, or one of them for a part of the other (CMU_a of CMU)."""
    keys = site_key(site), site_key(other)
    wholes = [site_key(re.sub(r"_[A-Za-z0-9]$", "", text)) for text in (site, other)]
    return keys[0] == keys[1] or wholes[0] == keys[1] or wholes[1] == keys[0]


def read_phenotypic(file: str | Path) -> Phenotypes:
    """Read a phenotypic table such as ABIDE's Phenotypic_V1_0b.csv: SITE_ID, and SUB_ID or FILE_ID.

    Values of -9999, empty ones and the like are missing. A participant with several rows keeps the site they agree on.

    Raises
    ------
    BIDSError
        The file cannot be read, or lacks these columns.
    """
    table = _read_table(Path(file))
    site = _column(table, SITE_COLUMNS)
    ids = [column for name in ID_COLUMNS if (column := _column(table, (name,)))]
    if not site or not ids:
        raise BIDSError(
            "a phenotypic table has a column SITE_ID, and SUB_ID or FILE_ID",
            file=file,
            value=", ".join(map(str, table.columns[:12])),
            next_step="Give ABIDE's Phenotypic_V1_0b.csv, or rename the columns.",
        )
    rows: dict[str, list[str | None]] = defaultdict(list)
    problems = []
    name = Path(file).name
    for line, row in enumerate(table.to_dict("records"), start=2):
        participant = next((value for column in ids if (value := _value(row[column]))), None)
        if participant is None:
            problems.append(SiteProblem("no id", f"{name}, line {line}", "the row names no participant; left out"))
        else:
            rows[participant_key(participant)].append(_value(row[site]))
    sites: dict[str, str | None] = {}
    for key, named in rows.items():
        sites[key] = _one_site(named)
        if len(named) > 1:
            problems.append(_duplicate(name, key, named))
        elif sites[key] is None:
            problems.append(SiteProblem("no site", name, f"participant {key} has no site in this table"))
    return Phenotypes(sites, tuple(problems))


def read_participants(root: SiteRoot) -> Phenotypes:
    """participants.tsv of one data set; what is wrong with it is a problem, not an error."""
    where = root.inside(PARTICIPANTS)
    if not (root.path / PARTICIPANTS).is_file():
        return Phenotypes({}, (SiteProblem("no table", where, "there is no participants.tsv"),))
    try:
        table = _read_table(root.path / PARTICIPANTS)
    except BIDSError as error:
        return Phenotypes({}, (SiteProblem("unreadable table", where, error.message),))
    ids, site = _column(table, ("participantid",)), _column(table, SITE_COLUMNS)
    if ids is None:
        return Phenotypes({}, (SiteProblem("unreadable table", where, "it has no column participant_id"),))
    rows: dict[str, list[str | None]] = defaultdict(list)
    for row in table.to_dict("records"):
        if value := _value(row[ids]):
            rows[participant_key(value)].append(_value(row[site]) if site else None)
    problems = [_duplicate(where, key, named) for key, named in rows.items() if len(named) > 1]
    if site is None and not root.name:  # in INDI's layout the folder tells the site
        problems.append(SiteProblem("no site", where, "it has no column for the site (site, SITE_ID ...)"))
    return Phenotypes({key: _one_site(named) for key, named in rows.items()}, tuple(problems))


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd  # a fourth of a second that only studies pay, not every worker

    try:
        table = pd.read_csv(
            path,
            sep="\t" if path.suffix == ".tsv" else ",",
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            encoding_errors="replace",
        )
    except (OSError, ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise BIDSError("not readable as a table", file=path, value=error, next_step="Check the file.") from error
    return table.rename(columns=lambda name: str(name).strip())


def _column(table: pd.DataFrame, names: Sequence[str]) -> str | None:
    columns = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in reversed(list(table.columns))}
    return next((columns[name] for name in names if name in columns), None)


def _value(cell: Any) -> str | None:
    text = str(cell).strip()
    return None if text.lower() in MISSING else text


def _one_site(named: Iterable[str | None]) -> str | None:
    """The site that all rows agree on."""
    sites = {site_key(site): site for site in named if site}
    return next(iter(sites.values())) if len(sites) == 1 else None


def _duplicate(where: str, key: str, named: Sequence[str | None]) -> SiteProblem:
    listed = ", ".join(dict.fromkeys(site or "none" for site in named))
    agree = "their site" if _one_site(named) else "no site is taken from them, sites named"
    return SiteProblem("duplicate id", where, f"participant {key} has {len(named)} rows; {agree}: {listed}")
