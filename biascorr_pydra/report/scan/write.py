"""Which pages have to be made, and making them: in parallel, each whole or not at all, none stopping another."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from biascorr_pydra.bids import make_folder
from biascorr_pydra.errors import BiasCorrError, OutputError
from biascorr_pydra.images.files import sha256, write_text
from biascorr_pydra.lock import FOLDER
from biascorr_pydra.report.collect import Cohort, Problem, Result
from biascorr_pydra.report.paths import PAGES, figures_folder, page_name, scan_page
from biascorr_pydra.report.ratings import Rating, Ratings, store_of

from .content import UNREACHED
from .order import PageOrder
from .page import render, template_sha256
from .pictures import Picture, ScanPictures, draw, key_of, key_of_method
from .ranges import CohortRanges

__all__ = ["ScanPages", "thumbnail", "write_scan_pages"]

FEW = 4  # pages for which it is worth starting a process


@dataclass
class ScanPages:
    """What :func:`write_scan_pages` did.

    Attributes
    ----------
    made, unchanged : numbers of pages
    removed : number of pages of scans that are no longer in the cohort
    problems : what could not be read, drawn or written, by scan
    """

    made: int = 0
    unchanged: int = 0
    removed: int = 0
    problems: list[Problem] = field(default_factory=list)


def write_scan_pages(
    cohort: Cohort, *, home: str | Path | None = None, n_procs: int | None = None, ratings: Ratings | None = None
) -> ScanPages:
    """Write the page of every scan of a cohort, ``reports/NAME.html`` in the scan's output folder, and its pictures.

    Parameters
    ----------
    cohort : Cohort
        As it was read from written files. A scan that no run has reached yet has no page.
    home : path, optional
        The cohort's page, to which the pages link; default, report.html in the scan's output folder.
    n_procs : int, optional
        Processes that make pages; default, as many as this process may use CPUs.
    ratings : Ratings, optional
        What is known of readers' ratings.

    Returns
    -------
    ScanPages
        A scan whose images are damaged, or whose page cannot be made, is among its problems, and has a page that says
        so if one can be written.

    Raises
    ------
    OutputError
        The folder for the pages cannot be made.
    """
    done, todo = ScanPages(), []
    orders = list(_orders(cohort, home, ratings or Ratings()))
    for folder in {order.out_dir for order in orders}:
        make_folder(figures_folder(folder))
        make_folder(_state_file(folder, "x").parent)
    for order in orders:
        known = _known_problems(order)
        if known is None:
            todo.append(order)
        else:
            done.unchanged += 1
            done.problems += [Problem(order.scan, text) for text in known]
    for scan, problems in _make_all(todo, n_procs or len(os.sched_getaffinity(0))):
        done.made += 1
        done.problems += [Problem(scan, text) for text in problems]
    for folder in {result.root for result in cohort.results}:
        done.removed += _remove_pages(folder, {result.scan for result in cohort.results if result.root == folder})
    done.problems.sort(key=lambda problem: (problem.file, problem.text))
    return done


def _orders(cohort: Cohort, home: str | Path | None, ratings: Ratings) -> Iterator[PageOrder]:
    ranges = CohortRanges(cohort)
    stores = {root: store_of(root) for root in {result.root: None for result in cohort.results}}
    scans = [results for results in cohort.by_scan().values() if any(map(_reached, results))]
    for number, results in enumerate(scans):
        root, scan = results[0].root, results[0].scan
        places = {result.method: ranges.places(result) for result in results}
        page = scan_page(root, scan)
        links = {"cohort": (_address(page, Path(home or root / "report.html")), cohort.name)}
        neighbors = {"previous": number - 1, "next": number + 1}
        for name, other in neighbors.items():
            if 0 <= other < len(scans):
                its = scans[other][0]
                links[name] = _address(page, scan_page(its.root, its.scan)), page_name(its.scan)
        rating = ratings.by_place.get(results[0].place, Rating())
        yield PageOrder(root, cohort.name, scan, results, places, links, stores[root], rating)


def _reached(result: Result) -> bool:
    return bool(result.record) or result.state not in UNREACHED


def _address(page: Path, other: Path) -> str:
    """A link from one page to another."""
    return quote(Path(os.path.relpath(other, page.parent)).as_posix())


def _make_all(todo: Sequence[PageOrder], n_procs: int) -> Iterator[tuple[str, list[str]]]:
    """Make pages; a process that dies costs only that its pages are made here, one by one."""
    left = dict(enumerate(todo))
    if min(n_procs, len(todo) // FEW) > 1 and not multiprocessing.current_process().daemon:
        # A fork of a process with threads (torch's, a worker's) may hang.
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(min(n_procs, len(todo) // FEW), mp_context=context) as pool:
                running = {pool.submit(_make, order): number for number, order in left.items()}
                for future in as_completed(running):
                    problems = future.result()
                    yield left.pop(running[future]).scan, problems
        except BrokenProcessPool:
            pass  # the rest is made here
    for order in left.values():
        yield order.scan, _make(order)


def _make(order: PageOrder) -> list[str]:
    """Make one page; what went wrong, in words."""
    try:
        return _page(order)
    except Exception as error:  # whatever a scan's files make it raise must not stop the others
        reason = str(error).replace(f"{order.out_dir}/", "") or type(error).__name__
        if isinstance(error, BiasCorrError):
            return [f"the page cannot be written: {reason}"]
        return [f"the page cannot be made: {type(error).__name__}: {reason}"]


def _page(order: PageOrder) -> list[str]:
    name = page_name(order.scan)
    state = _read_state(order.out_dir, name)
    key = key_of(order.scan, order.results)
    keys = {result.method: key_of_method(result) for result in order.results}
    pictures = _kept_pictures(order, state, key)
    if pictures is None:
        pictures = draw(order.out_dir, order.scan, name, order.results)
        old = state.get("files", [])
    else:
        old = []
    html, problems = render(order, pictures)
    page = scan_page(order.out_dir, order.scan)
    write_text(page, html)
    for file in set(map(str, old)) - pictures.files():
        _remove_picture(order.out_dir, file)
    # With problems little is kept: an image that is put right with its old size and time would not be looked at.
    thumbnails = {
        name: {"key": keys[name], **asdict(it.thumbnail)} for name, it in pictures.methods.items() if it.thumbnail
    }
    kept: dict[str, Any] = {"files": sorted(pictures.files()), "page": sha256(page), "thumbnails": thumbnails}
    if not pictures.problems:
        kept |= {
            "key": key,
            "words": order.digest(template_sha256()),
            "pictures": asdict(pictures),
            "problems": problems,
        }
    _keep_state(order.out_dir, name, kept)
    return [*pictures.problems, *problems]


# --- what is known of earlier pages


def thumbnail(result: Result) -> Picture | None:
    """The small picture of a scan and method beside the scan's page; None where none was drawn of what is there now."""
    state = _read_state(result.root, page_name(result.scan))
    try:
        kept = dict(state["thumbnails"][result.method])
        key, picture = kept.pop("key"), Picture(**kept)
    except (KeyError, TypeError, ValueError):
        return None
    if key != key_of_method(result):
        return None
    path = result.root / PAGES / picture.file
    return picture if path.parent == figures_folder(result.root) and path.is_file() else None


def _known_problems(order: PageOrder) -> list[str] | None:
    """What there was to report when the page was made; None where the page does not show what is there now."""
    state = _read_state(order.out_dir, page_name(order.scan))
    problems = state.get("problems")
    if (
        isinstance(problems, list)
        and state.get("words") == order.digest(template_sha256())
        and scan_page(order.out_dir, order.scan).is_file()
        and _kept_pictures(order, state, key_of(order.scan, order.results)) is not None
    ):
        return list(map(str, problems))
    return None


def _kept_pictures(order: PageOrder, state: dict[str, Any], key: str) -> ScanPictures | None:
    if state.get("key") != key:
        return None
    try:
        pictures = ScanPictures.from_json(state["pictures"])
    except (KeyError, TypeError, AttributeError):
        return None
    folder = order.out_dir / PAGES
    return pictures if all((folder / file).is_file() for file in pictures.files()) else None


def _state_file(out_dir: Path, name: str) -> Path:
    return out_dir / FOLDER / "pages" / f"{name}.json"


def _read_state(out_dir: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(_state_file(out_dir, name).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _keep_state(out_dir: Path, name: str, content: dict[str, Any]) -> None:
    """What cannot be kept is only made again."""
    try:
        write_text(_state_file(out_dir, name), json.dumps(content))
    except (OSError, OutputError):
        return


def _remove_pages(out_dir: Path, scans: Collection[str]) -> int:
    """Remove the pages and pictures of scans that are not among these; how many.

    Only what is as this package has written it: a page that somebody has changed stays.
    """
    names, removed = {page_name(scan) for scan in scans}, 0
    for file in sorted(_state_file(out_dir, "x").parent.glob("*.json")):
        if file.stem in names:
            continue
        page, state = out_dir / PAGES / f"{file.stem}.html", _read_state(out_dir, file.stem)
        if page.is_file() and sha256(page) == state.get("page"):
            page.unlink()
            removed += 1
        for picture in map(str, state.get("files", [])):
            _remove_picture(out_dir, picture)
        file.unlink()
    return removed


def _remove_picture(out_dir: Path, file: str) -> None:
    """Remove a picture that the scan's page no longer shows; only ever from the folder of pictures."""
    folder = figures_folder(out_dir)
    path = out_dir / PAGES / file
    if path.parent == folder:
        path.unlink(missing_ok=True)
