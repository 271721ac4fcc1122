"""The group table: its columns with their data dictionary, its rows, and changes from before to after in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from biascorr_pydra.judge import RANKED_BY
from biascorr_pydra.metrics import METRICS, shown_metrics
from biascorr_pydra.statistics import verdicts

from .collect import Cohort, Result

__all__ = [
    "MISSING",
    "STEPS",
    "UNCHANGED_PERCENT",
    "Change",
    "Column",
    "Tally",
    "columns",
    "comparison_way",
    "data_dictionary",
    "direction",
    "hint",
    "image_keys",
    "judge_word",
    "keys",
    "long_name",
    "own_keys",
    "tally",
    "to_tsv",
]

MISSING = "n/a"
STEPS = ("skull_strip", "correct", "segmentation")
#: A change smaller than this, in percent of the value before, counts as none.
UNCHANGED_PERCENT = 0.1

BETTER = {"lower": "lower is better", "higher": "higher is better", "one": "nearer to 1 is better", "none": ""}
SEGMENTATION = "The method's own tissue segmentation, and the image it was made on; its numbers are those called own."
PART_NAMES = {
    "before": "the acquired image, on the judge's tissue",
    "after": "the corrected image, on the judge's tissue",
    "own_before": "the acquired image, on the tissue of the method's own segmentation; never ranked",
    "own_after": "the corrected image, on the tissue of the method's own segmentation; never ranked",
}


def long_name(key: str) -> str:
    """A metric's name as people read it."""
    return METRICS[key].label if key in METRICS else key


def direction(key: str) -> str:
    """'lower', 'higher', 'one' or 'none', as in the registry of metrics."""
    return METRICS[key].direction if key in METRICS else "none"


def hint(key: str) -> str:
    """Which way is better, as people read it; empty where neither is."""
    advice = METRICS[key].advice if key in METRICS else ""
    return advice or BETTER[direction(key)]


# --- columns


@dataclass(frozen=True)
class Column:
    """A column of metrics.tsv: its entry in the data dictionary, and how its value is read from a result."""

    name: str
    entry: dict[str, Any]
    read: Callable[[Result], Any]


def keys(results: Iterable[Result], part: str, always: Iterable[str]) -> list[str]:
    """Keys of one part of the metrics files: those always shown, then any others, sorted."""
    recorded = {key for result in results for key in result.part(part)}
    return [*always, *sorted(recorded - set(always))]


def image_keys(results: Iterable[Result]) -> list[str]:
    """Metrics that are known before and after."""
    results, shown = list(results), shown_metrics("image")
    return list(dict.fromkeys(key for part in ("before", "after") for key in keys(results, part, shown)))


def own_keys(results: Iterable[Result]) -> list[str]:
    """Metrics that are known on the tissue of a method's own segmentation."""
    recorded = {key for result in results for part in ("own_before", "own_after") for key in result.part(part)}
    return [key for key in shown_metrics("image") if key in recorded] + sorted(recorded - set(shown_metrics("image")))


def columns(cohort: Cohort) -> list[Column]:
    """The columns of metrics.tsv for this cohort, in order."""
    table = [
        _text("scan", "Source image", "Path relative to the source data set.", lambda r: r.scan),
        _text("folder", "Folder", "Folder of the data set in a study of several.", lambda r: r.folder),
        _text("participant_id", "Participant", "BIDS subject.", lambda r: r.subject and f"sub-{r.subject}"),
        _text("session_id", "Session", "BIDS session, if any.", lambda r: r.session and f"ses-{r.session}"),
        _text("site", "Site", "Where it was acquired, as far as a table or folder names it.", lambda r: r.site),
        _text("suffix", "Suffix", "BIDS suffix: the contrast.", lambda r: r.suffix),
        _text("method", "Method", "Bias-field corrector; the name of its derivative data set.", lambda r: r.method),
        _text("method_version", "Method version", "", lambda r: r.record.get("method_version")),
        Column(
            "state",
            {
                "LongName": "Outcome",
                "Description": "What became of the scan in the last run.",
                "Levels": {
                    "done": "corrected in the last run",
                    "cached": "corrected by an earlier run and still valid",
                    "rejected": "the gate rejected the field; verdict_reason says why, applied what was done instead",
                    "failed": "not corrected; status.tsv and the report say why",
                    "waiting": "not corrected yet by the run that was going on or interrupted",
                    "skipped": "not an image to correct",
                },
            },
            lambda r: r.state,
        ),
        Column(
            "verdict",
            {
                "LongName": "Verdict on the field",
                "Description": "What the do-no-harm gate said of the field that the method found.",
                "Levels": {
                    "accepted": "divided out",
                    "negligible": "no field to speak of; the image was passed on as it is, with a field of 1",
                    "rejected": "not divided out",
                    "not judged": "divided out without being judged",
                },
            },
            lambda r: r.verdict,
        ),
        _text("verdict_reason", "Reason of the verdict", "", lambda r: r.verdict_reason),
        _text(
            "applied",
            "Field that was divided out",
            "The method whose field was divided out in the end, or none.",
            lambda r: r.part("gate").get("applied"),
        ),
        _text("segmentation", "Segmentation", SEGMENTATION, _segmentation),
    ]
    table += _judge_columns()
    for key in image_keys(cohort.results):
        table += [_metric(key, "before"), _metric(key, "after")]
    for key in own_keys(cohort.results):
        table += [_metric(key, "own_before"), _metric(key, "own_after")]
    table += [_metric(key, "field") for key in keys(cohort.results, "field", shown_metrics("field"))]
    table += [_runtime(step) for step in keys(cohort.results, "runtime_s", STEPS)]
    return table


def data_dictionary(table: list[Column]) -> dict[str, dict[str, Any]]:
    """BIDS-style descriptions of the columns, by name."""
    return {column.name: column.entry for column in table}


def _text(name: str, title: str, description: str, read: Callable[[Result], Any]) -> Column:
    return Column(name, {"LongName": title, "Description": description or title + "."}, read)


def _judge_columns() -> list[Column]:
    """What the judge said of the delivered image against the acquired one."""
    verdict = {
        "LongName": "Judge's verdict",
        "Description": "What the delivered image is against the acquired one, on tissue that no compared method made.",
        "Levels": {
            verdicts.BETTER: "tissue is more even, beyond the interval of the change and by at least 1%",
            verdicts.WORSE: "it is less even",
            verdicts.WITHIN_NOISE: "the interval of the change includes 0",
            verdicts.CANNOT_TELL: "the change is below 1%, or both images agree on too little tissue",
            verdicts.SAME: "the image was delivered as it was acquired",
            verdicts.NOT_JUDGED: "judge_note says why",
        },
    }
    table = [
        Column("judge", verdict, judge_word),
        _text("judge_note", "Why nothing was judged, or why the image was left out", "", _judge_note),
    ]
    for key in RANKED_BY:
        for i, (name, of) in enumerate((("change", "Change"), ("low", "Lower end"), ("high", "Upper end"))):
            entry = {
                "LongName": f"{of} of the change of {long_name(key).lower()}, acquired to delivered",
                "Description": f"{METRICS[key].definition}; 95% interval by resampling blocks of tissue.",
                "Units": "percent",
            }

            def read(result, key=key, i=i):
                pair = result.against_acquired
                return pair.changes[key][i] if pair and key in pair.changes else None

            table.append(Column(f"judge_{key}_{name}_percent", entry, read))
    return table


def judge_word(result: Result) -> str | None:
    """The judge's verdict against the acquired image, "not judged", or None for a result without a record."""
    if not result.record:
        return None
    return result.against_acquired.word if result.against_acquired else verdicts.NOT_JUDGED


def _judge_note(result: Result) -> str | None:
    if not result.record:
        return None
    judged = result.against_acquired is not None
    return result.judged.left_out(result.method) if judged else result.judged.reason_against(result.method)


def _segmentation(result: Result) -> str:
    return ", ".join(str(value) for key in ("method", "image") if (value := result.part("segmentation").get(key)))


def _metric(key: str, part: str) -> Column:
    entry = {"LongName": f"{long_name(key)}, {PART_NAMES.get(part, 'the bias field')}"}
    if key in METRICS:
        metric = METRICS[key]
        entry |= {"Description": metric.definition, "Units": metric.unit, "Direction": metric.direction}
        entry |= {"Reference": metric.reference}
    else:
        entry |= {"Description": "As found in the metrics files; not in the catalogue of metrics.", "Units": MISSING}
    safe = re.sub(r"\W+", "_", key)
    name = safe if part == "field" else f"{safe}_{part}"
    return Column(name, entry, lambda result: result.number(part, key))


def _runtime(step: str) -> Column:
    entry = {
        "LongName": f"Run time, {step.replace('_', ' ')}",
        "Description": f"Wall-clock time of the step {step}. A step shared by several methods counts in each of them.",
        "Units": "s",
        "Direction": "lower",
    }
    return Column(f"runtime_{step}_s", entry, lambda result: result.number("runtime_s", step))


# --- rows


def to_tsv(cohort: Cohort, table: list[Column]) -> str:
    """The table as tab-separated text: one row per scan and method, n/a where a value is undefined.

    Numbers are written so that reading them gives the same float. A failed scan keeps its row.
    """
    lines = [[column.name for column in table]]
    lines += [[_cell(column.read(result)) for column in table] for result in cohort.results]
    return "".join("\t".join(line) + "\n" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    # BIDS tables know no quoting, so that a tab or a line end inside a text must go.
    return " ".join(str(value).split()) if value not in (None, "") else MISSING


# --- changes


@dataclass(frozen=True)
class Change:
    """What became of one metric of one scan."""

    key: str
    before: float | None
    after: float | None

    @classmethod
    def of(cls, result: Result, key: str) -> Change:
        return cls(key, result.number("before", key), result.number("after", key))

    @property
    def percent(self) -> float | None:
        """After minus before, in percent of the magnitude before; None where that is not defined."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return 100 * (self.after - self.before) / abs(self.before)

    @property
    def way(self) -> str | None:
        """'higher', 'lower' or 'unchanged'; None if undefined. Whether that is good, only the judge says."""
        percent = self.percent
        if percent is None:
            return None
        if abs(percent) < UNCHANGED_PERCENT:
            return "unchanged"
        return "higher" if percent > 0 else "lower"


def comparison_way(row: Mapping[str, Any]) -> str:
    """Which way a metric changed over scans, in a word, or none; no change, and one within noise, are called so.

    ``row`` is one of :func:`biascorr_pydra.statistics.pairing.comparisons`.
    """
    percent = row["median_change_percent"]
    if not row["median_change"] or (percent is not None and abs(percent) < UNCHANGED_PERCENT):
        return "unchanged" if row["n"] else ""
    if row["ci_low"] is not None and row["ci_low"] <= 0 <= row["ci_high"]:
        return "unchanged within noise"
    return "higher" if row["median_change"] > 0 else "lower"


@dataclass(frozen=True)
class Tally:
    """Changes of one metric over scans.

    Attributes
    ----------
    n : int
        Scans whose change is defined.
    median_percent : float or None
    counts : dict
        'higher', 'lower' or 'unchanged' to number of scans.
    """

    key: str
    n: int
    median_percent: float | None
    counts: dict[str, int]


def tally(results: Iterable[Result], key: str) -> Tally:
    """Count the changes of one metric over the scans where both values are defined."""
    percents: list[float] = []
    counts: dict[str, int] = {}
    for change in (Change.of(result, key) for result in results):
        if change.percent is not None and change.way is not None:
            percents.append(change.percent)
            counts[change.way] = counts.get(change.way, 0) + 1
    return Tally(key, len(percents), median(percents) if percents else None, counts)
