"""What was done and found, in sentences that can be pasted into a methods section."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from biascorr_pydra import __version__
from biascorr_pydra.errors import UnknownMethodError
from biascorr_pydra.judge import ACQUIRED
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.metrics import METRICS
from biascorr_pydra.quality import NEGLIGIBLE, REJECTED
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.table import long_name
from biascorr_pydra.report.verdicts import ALL_SITES, judge_notes, sentence
from biascorr_pydra.report.words import number, p_value, plural, seconds
from biascorr_pydra.statistics.outliers import FEWEST
from biascorr_pydra.statistics.pairing import BEFORE

from .boilerplate import references_of
from .findings import Findings
from .run_times import CORRECT

__all__ = ["methods_text"]

HOW_JUDGED = (
    "the acquired and all corrected images of a scan were segmented alike into three classes of intensity, on a grid "
    "of about 2 mm. Two images were compared on voxels that both assigned to white matter, or both to gray matter, "
    "without the borders. The one was called better in which these tissues were more even, by at least 1% and beyond a "
    "95% bootstrap interval over blocks of tissue; otherwise the scan was undecided. Unevenness is the spread of log "
    "intensities, smoothed 4 mm within each tissue (1.4826 MAD in white plus gray matter), over the square root of the "
    "distance of their medians. Over the scans, a method was called better by a Wilcoxon signed-rank test and a "
    "bootstrap interval of the median change that excludes 0. CJV, CV and contrast are of the tissue that all images "
    "agree on, and rank nothing."
)


def methods_text(findings: Findings) -> list[str]:
    """One paragraph for each contrast; none where nothing is finished."""
    suffixes: dict[str, list[Result]] = {}
    for result in findings.cohort.results:
        suffixes.setdefault(result.suffix, []).append(result)
    return [
        " ".join(_sentences(findings, suffix, results))
        for suffix, results in sorted(suffixes.items())
        if any(result.record for result in results)
    ]


def _sentences(findings: Findings, suffix: str, results: list[Result]) -> Iterator[str]:
    methods = list(dict.fromkeys(result.method for result in results))
    n_scans, n_people = len({r.place for r in results}), len({(r.folder, r.subject) for r in results})
    sites = {result.site for result in results if result.site}
    where = f" at {plural(len(sites), 'site')}" if sites else ""
    unsited = len({result.place for result in results if not result.site})
    without = f" ({plural(unsited, 'scan')} without a known site)" if unsited and sites else ""
    named = " and ".join(_named(method, results) for method in methods)
    yield (
        f"The bias fields of {plural(n_scans, f'{suffix} scan')} of {plural(n_people, 'participant')}{where}{without} "
        f"were corrected with biascorr_pydra {__version__} by {named}."
    )
    if excluded := sum(findings.ratings.excluded(place) for place in {result.place for result in results}):
        yield f"Readers excluded {plural(excluded, 'scan')}, left out of all comparisons."
    yield from _preparation(results)
    yield from _judging(results)
    outdated = len(findings.outdated)
    if findings.waiting > outdated:
        yield f"PRELIMINARY: {plural(findings.waiting - outdated, 'correction')} of this cohort had not been made yet."
    if outdated:
        yield f"PRELIMINARY: {plural(outdated, 'correction')} of this cohort had been made with other settings."
    for method in methods:
        of_method = [result for result in results if result.method == method]
        yield _outcome(method, of_method)
        yield from _verdicts(findings, suffix, method)
        for row in findings.comparisons:
            compared = row["suffix"], row["method"], row["reference"]
            if compared == (suffix, method, BEFORE) and METRICS[row["metric"]].headline:
                yield from _change(row)
    if any(row["p"] is not None for row in findings.comparisons):
        yield (
            "Changes were tested with two-sided Wilcoxon signed-rank tests, p adjusted by Holm's method; intervals are "
            "95% percentile bootstrap intervals of the median change."
        )
    yield from _sites(findings, suffix)
    yield from _outliers(findings, suffix)
    yield from _times(findings, suffix)


def _named(method: str, results: Iterable[Result]) -> str:
    versions = {str(r.record["method_version"]) for r in results if r.method == method and "method_version" in r.record}
    presets = {str(r.record["preset"]) for r in results if r.method == method and r.record.get("preset")}
    details = [f"version {', '.join(sorted(versions))}"] if versions else []
    details += [f"preset {', '.join(sorted(presets))}"] if presets else []
    base = method.split("_", 1)[0]
    title = _title(base) or method
    if references := references_of(base):
        title += f" ({'; '.join(reference.with_doi for reference in references)})"
    return title + (f" ({'; '.join(details)})" if details else "")


def _title(method: str) -> str:
    """What running text calls a method, if not by its name."""
    try:
        return get_corrector(method).title
    except UnknownMethodError:  # of a package that is not installed where the report is made
        return ""


def _preparation(results: Iterable[Result]) -> Iterator[str]:
    masks = sorted({str(r.record["skull_strip"]) for r in results if r.record.get("skull_strip")})
    if masks:
        yield f"Brain masks were made by {' and '.join(masks)}."
    tissues = sorted({str(name) for r in results if (name := r.part("segmentation").get("method"))} - {"none"})
    if tissues:
        yield f"Tissues of each method's own image were segmented by {' and '.join(tissues)}; they compare nothing."


def _judging(results: Iterable[Result]) -> Iterator[str]:
    """How it was judged which image is better."""
    scans = {result.place: result.judged for result in results if result.record}
    judged = [one for one in scans.values() if one.reason is None]
    if judged:
        yield (
            f"{plural(len(judged), 'scan')} of {len(scans):,} {'was' if len(judged) == 1 else 'were'} judged on tissue "
            "that no compared method made: "
        ) + HOW_JUDGED
    yield from (f"{note}" for note in judge_notes(list(results)))


def _verdicts(findings: Findings, suffix: str, method: str) -> Iterator[str]:
    for row in findings.verdicts:
        if (row["suffix"], row["method"]) == (suffix, method) and row["n_not_judged"] < row["n_scans"]:
            text = sentence(row)
            yield text[0].upper() + text[1:] if row["reference"] == ACQUIRED else text


def _outcome(method: str, results: list[Result]) -> str:
    done = [result for result in results if result.record]
    clauses = [f"With {method}, {len(done):,} of {plural(len(results), 'scan')} went through"]
    rejected, negligible = (sum(r.verdict == verdict for r in done) for verdict in (REJECTED, NEGLIGIBLE))
    if rejected:
        applied = {r.part("gate").get("applied") for r in done if r.verdict == REJECTED} - {None, "none"}
        instead = f"used the field of {', '.join(sorted(map(str, applied)))}" if applied else "left the image as it is"
        clauses.append(f"a do-no-harm check rejected {plural(rejected, 'field')} and {instead}")
    if negligible:
        clauses.append(
            f"{plural(negligible, 'field')} {'was' if negligible == 1 else 'were'} negligible and not applied"
        )
    if failed := sum(result.failed for result in results):
        clauses.append(f"{plural(failed, 'scan')} failed")
    return "; ".join(clauses) + "."


def _change(row: dict[str, Any]) -> Iterator[str]:
    if not row["n"]:
        return
    middles = f"from a median of {number(row['median_reference'])} to {number(row['median_method'])}"
    if row["median_change"]:
        moved = f"{'fell' if row['median_change'] < 0 else 'rose'} {middles} (median change {_with_interval(row)}; "
    else:
        moved = f"did not change in the median scan (all scans: {middles}; "
    yield f"{long_name(row['metric'])} {moved}{_test(row)}; {_ways(row)})."


def _with_interval(row: dict[str, Any]) -> str:
    if row["ci_low"] is None:
        return number(row["median_change"])
    return f"{number(row['median_change'])}, 95% interval {number(row['ci_low'])} to {number(row['ci_high'])}"


def _test(row: dict[str, Any]) -> str:
    if row["n_tied"] == row["n"]:
        return "no scan changed"
    return "too few scans for a test" if row["p"] is None else f"p {_equals(p_value(row['p_holm']))}"


def _equals(text: str) -> str:
    return text if text.startswith("<") else f"= {text}"


def _ways(row: dict[str, Any]) -> str:
    return f"lower in {row['n_fell']:,}, higher in {row['n_rose']:,} of {plural(row['n'], 'scan')}"


def _sites(findings: Findings, suffix: str) -> Iterator[str]:
    for row in findings.site_differences:
        if (row["suffix"], row["site"]) == (suffix, ALL_SITES) and None not in (row["jsd_before"], row["jsd_after"]):
            yield (
                "The Jensen–Shannon divergence of the sites' median-normalized brain intensities went from "
                f"{number(row['jsd_before'])} to {number(row['jsd_after'])} with {row['method']} "
                f"({plural(row['n_scans'], 'scan')})."
            )


def _outliers(findings: Findings, suffix: str) -> Iterator[str]:
    of_suffix = [flag for flag in findings.flags if flag.results[0].suffix == suffix]
    flagged = sum(any(reason.kind == "outlier" for reason in flag.reasons) for flag in of_suffix)
    yield (
        f"{plural(flagged, 'scan')} {'was' if flagged == 1 else 'were'} flagged as outliers (absolute robust z above "
        f"{findings.threshold:g} within the site, by median and MAD; among all scans for sites of fewer than {FEWEST})."
    )


def _times(findings: Findings, suffix: str) -> Iterator[str]:
    for row in findings.run_times:
        if (row["suffix"], row["step"]) == (suffix, CORRECT):
            yield f"Correction by {row['method']} took a median of {seconds(row['median_s'])} a scan."
