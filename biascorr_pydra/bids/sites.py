"""Multi-site studies: which BIDS data sets a study folder holds, and which site each scan belongs to.

Two layouts are known. INDI's ABIDE: one BIDS data set a site, or part of a site; its phenotypic file has unpadded ids::

    RawDataBIDS/Caltech/participants.tsv
                Caltech/T1w.json
                Caltech/sub-0051456/anat/sub-0051456_T1w.nii.gz
                MaxMun_a/...  MaxMun_b/...

and one BIDS data set whose participants.tsv has a column for the site. Whatever does not fit together is reported as a
:class:`SiteProblem`, never dropped in silence; only what leaves nothing to work on is an error.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from biascorr_pydra.errors import BIDSError

from .jobs import DATASET_DESCRIPTION, Job

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Phenotypes",
    "SiteProblem",
    "SiteRoot",
    "SitedScan",
    "assign_sites",
    "find_site_roots",
    "inner_data_sets",
    "participant_key",
    "read_phenotypic",
    "same_site",
]

#: Names of a site column, lower case and without punctuation, the first that is there counts.
SITE_COLUMNS = ("siteid", "site", "sitename", "acquisitionsite", "center", "centre")
ID_COLUMNS = ("subid", "participantid", "subjectid", "fileid")
MISSING = ("", "-9999", "-9999.0", "n/a", "na", "nan", "none", "null", "no_filename")
NOT_SITES = ("derivatives", "sourcedata", "code", "stimuli", "phenotype")
RAW_DATA = "RawDataBIDS"
PARTICIPANTS = "participants.tsv"


class SiteProblem(NamedTuple):
    """Something that does not fit together: its kind, where, and what, in words."""

    kind: str
    where: str
    text: str


@dataclass(frozen=True)
class SiteRoot:
    """One BIDS data set of a study; ``name`` is its folder's, "" where the study is this one data set."""

    name: str
    path: Path

    @property
    def described(self) -> bool:
        """Whether it has a dataset_description.json."""
        return (self.path / DATASET_DESCRIPTION).is_file()

    def has(self, suffix: str) -> bool:
        """Whether any participant has an image of this contrast."""
        return any(True for _ in self.path.glob(f"sub-*/**/*_{suffix}.nii*"))

    def participants(self) -> list[str]:
        """Labels, without "sub-", of its participants' folders."""
        return sorted(path.name.removeprefix("sub-") for path in self.path.glob("sub-*") if path.is_dir())


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


@dataclass(frozen=True)
class SitedScan:
    """One scan and its site.

    ``folder`` is the name of its :class:`SiteRoot`, ``source`` what named the site: "phenotypic", "participants",
    "folder", or "neighbors" (the one site of the other scans in its folder). Without a site, both are None.
    """

    folder: str
    scan: str
    participant_id: str
    site: str | None
    source: str | None


# --- which data sets


def find_site_roots(study_dir: str | Path) -> list[SiteRoot]:
    """The BIDS data sets of a study: the folder itself if it holds ``sub-*`` folders, else its subfolders that do.

    A folder that holds RawDataBIDS and no participants stands for that RawDataBIDS, as INDI's ABIDE does.

    Raises
    ------
    BIDSError
        There is no such folder, or no data set in it.
    """
    study_dir = Path(study_dir)
    if not study_dir.is_dir():
        raise BIDSError("no such folder", file=study_dir, next_step="Check the path of the study.")
    if SiteRoot("", study_dir).participants():
        return [SiteRoot("", study_dir)]
    folders = [path for path in sorted(study_dir.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    roots = [SiteRoot(path.name, path) for path in folders if path.name not in NOT_SITES]
    roots = [root for root in roots if root.participants() or (root.path / PARTICIPANTS).is_file()]
    if not roots and (study_dir / RAW_DATA).is_dir():
        return find_site_roots(study_dir / RAW_DATA)
    if not roots:
        raise BIDSError(
            "neither a BIDS data set nor a folder of them: no sub-* folder in it or in its subfolders",
            file=study_dir,
            next_step="Point to the data set's root, or to the folder with one BIDS data set a site.",
        )
    return roots


def inner_data_sets(root: SiteRoot) -> list[str]:
    """Names of folders inside a data set that are data sets of their own, which nothing else would speak of."""
    folders = [path for path in sorted(root.path.iterdir()) if path.is_dir() and path.name not in NOT_SITES]
    folders = [path for path in folders if not path.name.startswith((".", "sub-"))]
    return [path.name for path in folders if SiteRoot(path.name, path).participants()]


# --- which sites the tables name


def participant_key(text: str) -> str:
    """An id as it is compared: sub-0050002, 0050002, 50002, 50002.0 and Pitt_0050002 are the same participant."""
    text = text.strip().removeprefix("sub-")
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    text = re.sub(r"^[A-Za-z_]+\w*_(\d+)$", r"\1", text)
    return text.lstrip("0") or "0" if text.isdecimal() else text


def site_key(text: str) -> str:
    """A site's name as it is compared: MAX_MUN and MaxMun are the same."""
    return re.sub(r"[^A-Z0-9]", "", text.upper())


def same_site(one: str, other: str) -> bool:
    """Whether two names stand for one site: spelled alike, or one of them for a part of the other (CMU_a of CMU)."""
    keys = site_key(one), site_key(other)
    wholes = [site_key(re.sub(r"_[A-Za-z0-9]$", "", text)) for text in (one, other)]
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
    site, ids = _column(table, SITE_COLUMNS), [_column(table, (name,)) for name in ID_COLUMNS]
    ids = [name for name in ids if name]
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
        found = next((value for column in ids if (value := _value(row[column]))), None)
        if found is None:
            problems.append(SiteProblem("no id", f"{name}, line {line}", "the row names no participant; left out"))
        else:
            rows[participant_key(found)].append(_value(row[site]))
    sites = {}
    for key, named in rows.items():
        sites[key] = _one_site(named)
        if len(named) > 1:
            problems.append(_duplicate(name, key, named))
        elif sites[key] is None:
            problems.append(SiteProblem("no site", name, f"participant {key} has no site in this table"))
    return Phenotypes(sites, tuple(problems))


def _participants(root: SiteRoot) -> Phenotypes:
    """participants.tsv of one data set; what is wrong with it is a problem, not an error."""
    where = _where(root, PARTICIPANTS)
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
    found = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in reversed(list(table.columns))}
    return next((found[name] for name in names if name in found), None)


def _value(cell) -> str | None:
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


def _where(root: SiteRoot, name: str) -> str:
    return f"{root.name}/{name}" if root.name else name


# --- which site each scan has


def assign_sites(
    scans: Mapping[SiteRoot, Sequence[Job]],
    phenotypes: Phenotypes | None = None,
    *,
    aside: Iterable[SiteRoot] = (),
    everyone: bool = True,
) -> tuple[list[SitedScan], list[SiteProblem]]:
    """The site of each scan: by the phenotypic table, else by participants.tsv, else by the folder.

    Parameters
    ----------
    scans : the scans of each data set
    phenotypes : overrides the other two, where it names a site
    aside : data sets whose scans are not known; their participants are not called missing
    everyone : bool
        Whether all participants were asked for, so that one without a scan is missing.

    Returns
    -------
    scans with their sites, in the order given, and the problems
    """
    problems = list(phenotypes.problems) if phenotypes else []
    found: list[SitedScan] = []
    tables = {root: _participants(root) for root in scans}
    for root, jobs in scans.items():
        problems += tables[root].problems if jobs else ()
        found += [_sited(job, root, tables[root], phenotypes, problems) for job in jobs]
    problems += _unmatched(found, phenotypes)
    problems += _twice(found)
    if everyone:
        unknown = {participant_key(label) for root in aside for label in root.participants()}
        problems += [problem for key, problem in _without_scan(scans, tables, phenotypes) if key not in unknown]
    return _unified(found), problems


def _sited(job: Job, root: SiteRoot, table: Phenotypes, phenotypes: Phenotypes | None, problems: list) -> SitedScan:
    label = job.entity("sub") or ""
    key = participant_key(label)
    named = {
        "phenotypic": phenotypes.sites.get(key) if phenotypes else None,
        "participants": table.sites.get(key),
        "folder": root.name or None,
    }
    named = {source: site for source, site in named.items() if site}
    source = next(iter(named), None)
    disagree = [other for other in named if not same_site(named[source], named[other])]
    if disagree:
        told = "; ".join(f"{other}: {site}" for other, site in named.items())
        text = f"sites disagree ({told}); {named[source]} is used"
        problems.append(SiteProblem("site conflict", _where(root, job.relative), text))
    if source is None:
        problems.append(
            SiteProblem("no site", _where(root, job.relative), "nothing names its site; not in the site table")
        )
    return SitedScan(root.name, job.relative, f"sub-{label}", named.get(source), source)


def _unmatched(found: Sequence[SitedScan], phenotypes: Phenotypes | None) -> list[SiteProblem]:
    if phenotypes is None:
        return []
    people = dict.fromkeys((scan.folder, scan.participant_id) for scan in found)
    return [
        SiteProblem(
            "unmatched participant", f"{folder}/{label}".lstrip("/"), "has a scan and no row in the phenotypic table"
        )
        for folder, label in people
        if participant_key(label) not in phenotypes.sites
    ]


def _twice(found: Sequence[SitedScan]) -> list[SiteProblem]:
    """Participants that stand in several data sets, and such with several scans."""
    folders, scans = defaultdict(dict), defaultdict(list)
    for scan in found:
        folders[participant_key(scan.participant_id)][scan.folder] = scan.participant_id
        scans[scan.folder, scan.participant_id].append(scan.scan)
    problems = [
        SiteProblem("duplicate id", next(iter(where.values())), f"in several folders, each counted: {', '.join(where)}")
        for where in folders.values()
        if len(where) > 1
    ]
    return problems + [
        SiteProblem(
            "several scans", f"{folder}/{label}".lstrip("/"), f"{len(names)} scans, which the tests take as independent"
        )
        for (folder, label), names in scans.items()
        if len(names) > 1
    ]


def _without_scan(
    scans: Mapping[SiteRoot, Sequence[Job]], tables: Mapping[SiteRoot, Phenotypes], phenotypes: Phenotypes | None
) -> Iterator[tuple[str, SiteProblem]]:
    """Participants that a folder or a table names and that have no scan, each once, with their keys."""
    have = {participant_key(job.entity("sub") or "") for jobs in scans.values() for job in jobs}
    missing: dict[str, list[str]] = defaultdict(list)
    for root in scans:
        for label in root.participants():
            missing[participant_key(label)].append(_where(root, f"sub-{label}"))
        for key in tables[root].sites:
            missing[key].append(_where(root, PARTICIPANTS))
    for key, site in (phenotypes.sites if phenotypes else {}).items():
        missing[key].append(f"the phenotypic table ({site or 'no site'})")
    for key, named in missing.items():
        if key not in have:
            text = f"no scan of this contrast; named by {', '.join(named)}"
            yield key, SiteProblem("missing scan", f"participant {key}", text)


def _unified(found: Sequence[SitedScan]) -> list[SitedScan]:
    """One spelling a site, the phenotypic table's first; a scan that only its folder places goes with its neighbors."""
    spelling: dict[str, str] = {}
    for source in ("phenotypic", "participants", "folder"):
        for scan in found:
            if scan.source == source:
                spelling.setdefault(site_key(scan.site), scan.site)
    neighbors: dict[str, set[str]] = defaultdict(set)
    for scan in found:
        if scan.source in ("phenotypic", "participants"):
            neighbors[scan.folder].add(spelling[site_key(scan.site)])
    unified = []
    for scan in found:
        site, source = scan.site and spelling[site_key(scan.site)], scan.source
        if source == "folder" and len(neighbors[scan.folder]) == 1:
            (near,) = neighbors[scan.folder]
            if near != site and same_site(near, site):
                site, source = near, "neighbors"
        unified.append(SitedScan(scan.folder, scan.scan, scan.participant_id, site, source))
    return unified
