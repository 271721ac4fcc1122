"""The judge's verdicts over a cohort: each method against the acquired image, and the methods with each other.

The only place in which a report ranks methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from biascorr_pydra.judge import ACQUIRED, RANKED_BY
from biascorr_pydra.metrics import shown_metrics
from biascorr_pydra.statistics.compare import holm
from biascorr_pydra.statistics.pairing import BEFORE, pairs
from biascorr_pydra.statistics.verdicts import (
    BETTER,
    CANNOT_TELL,
    NOT_JUDGED,
    SAME,
    WITHIN_NOISE,
    WORSE,
    CohortVerdict,
    cohort_verdict,
    counted,
)

from .judge_records import AGAIN, NEXT_STEP
from .judged import PairOfImages, back
from .results import Result
from .table import hint, long_name
from .words import p_value, percent, plural

__all__ = [
    "ALL_SITES",
    "better_first",
    "columns_of_verdicts",
    "judge_notes",
    "over_cohort",
    "reading",
    "sentence",
    "undecided",
    "verdict_rows",
]

ALL_SITES = "all sites"
#: Columns of the counts, by what a pair of a scan can be called.
COUNTS = {
    BETTER: "n_better",
    WORSE: "n_worse",
    WITHIN_NOISE: "n_within_noise",
    CANNOT_TELL: "n_cannot_tell",
    SAME: "n_same",
    NOT_JUDGED: "n_not_judged",
}
_COLUMNS = {
    "method": "Bias-field corrector.",
    "reference": f'What it is compared with: "{ACQUIRED}" is the acquired image; otherwise another corrector.',
    "n_scans": "Scans that both corrected.",
    "n_better": "Scans in which the judge calls the method's image the better one.",
    "n_worse": "Scans in which it calls the reference's image the better one.",
    "n_within_noise": "Scans in which the interval of the change includes 0.",
    "n_cannot_tell": "Scans in which the change is below 1%, or the two images share too little tissue.",
    "n_same": "Scans in which the two images are the same.",
    "n_not_judged": "Scans that were not judged.",
    "verdict": "Over the cohort: better or worse only where test and interval say so.",
    "why": "Why the verdict is that.",
    "p": "Of the two-sided Wilcoxon signed-rank test; n/a for too few scans.",
}
_ENDS = {"percent": "Median change", "low": "Lower end of its interval", "high": "Upper end of its interval"}


def columns_of_verdicts() -> dict[str, dict[str, Any]]:
    """The data dictionary of :func:`verdict_rows`, without what stands at the beginning of its rows."""
    columns: dict[str, dict[str, Any]] = {name: {"Description": text} for name, text in _COLUMNS.items()}
    for key in RANKED_BY:
        for end, text in _ENDS.items():
            description = f"{text} (95%, bootstrap over scans): {long_name(key).lower()}, reference to method."
            columns[f"{key}_{end}"] = {"Description": description, "Units": "percent"}
    holm_text = "p adjusted by Holm's method over the pairs of the contrast, within a site or over all."
    return columns | {"p_holm": {"Description": holm_text}}


def verdict_rows(results: Sequence[Result], methods: Sequence[str], first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each pair of methods; ``p`` is adjusted over them.

    Parameters
    ----------
    results : of one contrast
    methods : in the order in which they are compared
    first : what stands at the beginning of each row
    """
    by_method = {m: {r.place: r for r in results if r.method == m and r.record} for m in methods}
    compared = [(ACQUIRED if reference == BEFORE else reference, method) for reference, method in pairs(methods)]
    values = [_values(by_method, *pair) for pair in compared]
    adjusted = holm([cohort_verdict(*both).p for both in values])
    rows = []
    for (reference, method), both, p in zip(compared, values, adjusted, strict=True):
        words = [r.judged.compare(reference, method) for r in _shared(by_method, reference, method)]
        counts = counted(None if pair is None else pair.word for pair in words)
        row = {**first, "method": method, "reference": reference, "n_scans": len(words)}
        row |= {COUNTS[word]: n for word, n in counts.items()}
        rows.append(row | _numbers(cohort_verdict(*both, p=p)) | {"p_holm": p})
    return rows


def _shared(by_method: Mapping[str, Mapping[str, Result]], reference: str, method: str) -> list[Result]:
    """The results of a method in the scans that the reference has, too."""
    others = by_method[method] if reference == ACQUIRED else by_method[reference]
    return [result for place, result in by_method[method].items() if place in others]


def _values(
    by_method: Mapping[str, Mapping[str, Result]], reference: str, method: str
) -> tuple[dict[str, list[float | None]], dict[str, list[float | None]]]:
    """The numbers that rank, of the method in parts of the reference's, scan by scan: each pair has its own tissue."""
    pairs = [result.judged.compare(reference, method) for result in _shared(by_method, reference, method)]
    ratios = {key: [_ratio(pair, key) for pair in pairs] for key in RANKED_BY}
    return {key: [None if r is None else 1.0 for r in values] for key, values in ratios.items()}, ratios


def _ratio(pair: PairOfImages | None, key: str) -> float | None:
    if pair is None:
        return None
    if pair.word == SAME:
        return 1.0
    return 1 + pair.changes[key][0] / 100 if key in pair.changes else None


def _numbers(verdict: CohortVerdict) -> dict[str, Any]:
    row: dict[str, Any] = {"verdict": verdict.word, "why": verdict.why, "p": verdict.p}
    for key, (change, low, high) in verdict.changes.items():
        row |= {f"{key}_percent": change, f"{key}_low": low, f"{key}_high": high}
    return row


# --- in words


def judge_notes(results: Sequence[Result]) -> list[str]:
    """What was not judged, why, and what to do; empty where all scans with a record were."""
    scans = {result.place: result.judged.reason for result in results if result.record}
    reasons = Counter(reason for reason in scans.values() if reason is not None)
    notes = []
    for reason, n in reasons.most_common():
        which = "No scan was judged" if n == len(scans) else f"{plural(n, 'scan')} not judged"
        step = f" {NEXT_STEP}" if reason in AGAIN else ""
        notes.append(f"{which}: {reason}.{step}")
    return notes


def better_first(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of two methods, turned so that the one that was better more often comes first."""
    if row["reference"] == ACQUIRED or row["n_worse"] <= row["n_better"]:
        return row
    words = {BETTER: WORSE, WORSE: BETTER}
    turned = {**row, "method": row["reference"], "reference": row["method"]}
    turned |= {
        "n_better": row["n_worse"],
        "n_worse": row["n_better"],
        "verdict": words.get(row["verdict"], row["verdict"]),
    }
    for key in RANKED_BY:
        ends = (("percent", "percent"), ("low", "high"), ("high", "low"))
        numbers = {mine: row.get(f"{key}_{other}") for mine, other in ends}
        turned |= {f"{key}_{mine}": None if value is None else back(value) for mine, value in numbers.items()}
    return turned


def sentence(row: Mapping[str, Any]) -> str:
    """One pair over a cohort: how often which was better, and whether that holds for the cohort."""
    row = better_first(row)
    n = row["n_scans"] - row["n_not_judged"]
    start = f"{row['method']} against {_called(row['reference'])}:"
    if not n:
        return f"{start} not judged."
    ways = [f"better in {row['n_better']:,}", f"worse in {row['n_worse']:,}"]
    ways += [f"undecided in {undecided(row):,}"] if undecided(row) else []
    ways += [f"the same image in {row['n_same']:,}"] if row["n_same"] else []
    return f"{start} {', '.join(ways)} of {plural(n, 'judged scan')}; over the cohort: {over_cohort(row)}."


def undecided(row: Mapping[str, Any]) -> int:
    """Judged scans in which neither image was called the better one, and that are not the same image."""
    return row["n_within_noise"] + row["n_cannot_tell"]


def over_cohort(row: Mapping[str, Any]) -> str:
    """The verdict over the cohort with its numbers or its reason."""
    if row["verdict"] in (BETTER, WORSE, WITHIN_NOISE):
        changes = [
            f"{long_name(key).lower()} {percent(row[f'{key}_percent'])} "
            f"({percent(row[f'{key}_low'])} to {percent(row[f'{key}_high'])})"
            for key in RANKED_BY
        ]
        p = p_value(row["p_holm"])
        return f"{row['verdict']} ({', '.join(changes)}, p {p if p.startswith('<') else f'= {p}'})"
    return f"{row['verdict']} ({row['why']})"


def _called(reference: str) -> str:
    return "the acquired image" if reference == ACQUIRED else reference


def reading() -> list[str]:
    """How to read the verdicts."""
    return [
        "The judge: all images of a scan (the acquired one, and each corrected one) are segmented alike on a grid of "
        "about 2 mm. Two images are compared on voxels that both call white matter, or both gray matter, with their "
        "neighbors. So the tissue is neither's, and follows no field.",
        "Better means: the tissue is more even, beyond a 95% interval by resampling blocks of tissue, and by at least "
        "1%. Unevenness is the spread of log intensities within the tissues (a field that is left raises it) over the "
        "root of their contrast (a correction that flattens contrast gains little).",
        "Undecided scans are of two kinds. Unchanged within noise: the interval includes 0. Cannot tell: a change "
        "too small to matter, or too little tissue that both images agree on.",
        "Over the cohort a method is called better only if a Wilcoxon signed-rank test (Holm-adjusted over the pairs) "
        "says so and a bootstrap interval of the median change excludes 0. Fewer than 6 judged scans have no test; "
        "then their counts are all there is.",
        "CJV, CV and contrast are of tissue that all images of the scan agree on. They describe and rank nothing: a "
        "coefficient of variation also falls when contrast is lost, so read it next to the WM–GM contrast.",
        *(f"{long_name(key)}: {hint(key)}." for key in shown_metrics("image") if hint(key)),
        "“Own segmentation” is the tissue segmented in each method's own image: what you will see if you use that "
        "method alone. It favors whoever flattens most by its own lights, so methods are not compared by it.",
        "CJV, CV and contrast depend on the set of methods of the run: compare within one report only. Verdicts do "
        "not. FLAIR images are decided less often than T1w.",
    ]
