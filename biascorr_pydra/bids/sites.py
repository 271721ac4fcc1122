"""Which site each scan of a multi-site study belongs to, and what does not fit together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .jobs import Job
from .phenotypes import Phenotypes, SiteProblem, participant_key, read_participants, same_site, site_key
from .roots import PARTICIPANTS, SiteRoot

__all__ = ["SitedScan", "assign_sites"]


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
    sited: list[SitedScan] = []
    tables = {root: read_participants(root) for root in scans}
    for root, jobs in scans.items():
        problems += tables[root].problems if jobs else ()
        sited += [_sited(job, root, tables[root], phenotypes, problems) for job in jobs]
    problems += _unmatched(sited, phenotypes)
    problems += _twice(sited)
    if everyone:
        unknown = {participant_key(label) for root in aside for label in root.participants()}
        problems += [problem for key, problem in _without_scan(scans, tables, phenotypes) if key not in unknown]
    return _unified(sited), problems


def _sited(job: Job, root: SiteRoot, table: Phenotypes, phenotypes: Phenotypes | None, problems: list) -> SitedScan:
    label = job.entity("sub") or ""
    key = participant_key(label)
    by_source = {
        "phenotypic": phenotypes.sites.get(key) if phenotypes else None,
        "participants": table.sites.get(key),
        "folder": root.name or None,
    }
    named = {source: site for source, site in by_source.items() if site}
    if not named:
        text = "nothing names its site; not in the site table"
        problems.append(SiteProblem("no site", root.inside(job.relative), text))
        return SitedScan(root.name, job.relative, f"sub-{label}", None, None)
    source, site = next(iter(named.items()))
    if not all(same_site(site, other) for other in named.values()):
        listed = "; ".join(f"{other}: {name}" for other, name in named.items())
        text = f"sites disagree ({listed}); {site} is used"
        problems.append(SiteProblem("site conflict", root.inside(job.relative), text))
    return SitedScan(root.name, job.relative, f"sub-{label}", site, source)


def _unmatched(scans: Sequence[SitedScan], phenotypes: Phenotypes | None) -> list[SiteProblem]:
    if phenotypes is None:
        return []
    people = dict.fromkeys((scan.folder, scan.participant_id) for scan in scans)
    return [
        SiteProblem(
            "unmatched participant", f"{folder}/{label}".lstrip("/"), "has a scan and no row in the phenotypic table"
        )
        for folder, label in people
        if participant_key(label) not in phenotypes.sites
    ]


def _twice(sited: Sequence[SitedScan]) -> list[SiteProblem]:
    """Participants that stand in several data sets, and such with several scans."""
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    scans: dict[tuple[str, str], list[str]] = defaultdict(list)
    for scan in sited:
        folders[participant_key(scan.participant_id)][scan.folder] = scan.participant_id
        scans[scan.folder, scan.participant_id].append(scan.scan)
    problems = [
        SiteProblem("duplicate id", next(iter(ids.values())), f"in several folders, each counted: {', '.join(ids)}")
        for ids in folders.values()
        if len(ids) > 1
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
            missing[participant_key(label)].append(root.inside(f"sub-{label}"))
        for key in tables[root].sites:
            missing[key].append(root.inside(PARTICIPANTS))
    for key, site in (phenotypes.sites if phenotypes else {}).items():
        missing[key].append(f"the phenotypic table ({site or 'no site'})")
    for key, named in missing.items():
        if key not in have:
            text = f"no scan of this contrast; named by {', '.join(named)}"
            yield key, SiteProblem("missing scan", f"participant {key}", text)


def _unified(sited: Sequence[SitedScan]) -> list[SitedScan]:
    """One spelling a site, the phenotypic table's first; a scan that only its folder places goes with its neighbors."""
    spelling: dict[str, str] = {}
    for source in ("phenotypic", "participants", "folder"):
        for scan in sited:
            if scan.site and scan.source == source:
                spelling.setdefault(site_key(scan.site), scan.site)
    scans = [replace(scan, site=spelling[site_key(scan.site)]) if scan.site else scan for scan in sited]
    in_tables: dict[str, set[str | None]] = defaultdict(set)
    for scan in scans:
        if scan.source in ("phenotypic", "participants"):
            in_tables[scan.folder].add(scan.site)
    return [_with_neighbors(scan, in_tables[scan.folder]) for scan in scans]


def _with_neighbors(scan: SitedScan, sites: Collection[str | None]) -> SitedScan:
    """The scan with the one site that tables name for others of its folder, if the folder's name agrees with it."""
    neighbor = next(iter(sites)) if len(sites) == 1 else None
    if scan.source != "folder" or not scan.site or not neighbor or neighbor == scan.site:
        return scan
    return replace(scan, site=neighbor, source="neighbors") if same_site(neighbor, scan.site) else scan
