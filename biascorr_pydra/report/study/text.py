"""The summary of an evaluation: words first, then the tables; one text, as Markdown and as HTML."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from biascorr_pydra import __version__
from biascorr_pydra.judge import ACQUIRED
from biascorr_pydra.metrics import shown_metrics
from biascorr_pydra.report.table import long_name
from biascorr_pydra.report.verdicts import better_first, over_cohort, reading, sentence, undecided
from biascorr_pydra.statistics.compare import FEWEST_SCANS

from .evaluation import Evaluation

__all__ = ["Block", "summary", "to_html", "to_markdown"]

NONE = "n/a"
BEFORE = "before"
DESCRIBED = "These numbers describe. Which method is better, the judge's verdicts above say alone."
FEW = 12  # problems shown of each kind; the table has all


@dataclass(frozen=True)
class Block:
    """A part of the summary.

    Attributes
    ----------
    kind : "title", "heading", "text", "list", "table" or "figure"
    content : a text; of a list, texts; of a table, rows of texts, the first its heads; of a figure, its caption
    """

    kind: str
    content: Any


def summary(evaluation: Evaluation, *, has_figure: bool) -> list[Block]:
    """The whole summary."""
    blocks = [Block("title", f"Bias correction of {evaluation.design.get('study', 'a study')}, site by site")]
    blocks.append(Block("text", " ".join(_counts(evaluation))))
    blocks += [Block("text", text) for text in (*evaluation.notes, *_cautions(evaluation))]
    blocks += [Block("heading", "Did it help, and which method is better")]
    several = len({row["suffix"] for row in evaluation.verdicts}) > 1
    texts = [f"{row['suffix']}: {sentence(row)}" if several else sentence(row) for row in evaluation.verdicts]
    blocks.append(Block("list", texts))
    blocks.append(Block("table", _verdicts(evaluation.verdicts)))
    blocks += [Block("heading", "What changed on the judge's tissue"), Block("text", DESCRIBED)]
    scans = evaluation.overall[evaluation.overall["unit"] == "scan"]
    blocks.append(Block("list", [_sentence(evaluation, row) for row in scans.to_dict("records")]))
    if has_figure:
        caption = "Change of each scan (dots) and its site's median (bars), in percent of the value before correction"
        blocks.append(Block("figure", caption))
    blocks += [Block("heading", "Overall"), Block("table", _overall(evaluation.overall))]
    blocks += [Block("heading", "By site: median change from before, in percent"), Block("table", _by_site(evaluation))]
    blocks += list(_problems(evaluation))
    blocks += [Block("heading", "How to read this"), Block("list", _reading())]
    return blocks


# --- words


def _counts(evaluation: Evaluation) -> Iterator[str]:
    scans = evaluation.scans
    unique = scans[["folder", "scan", "participant_id", "site"]].drop_duplicates()
    people, sites = unique[["folder", "participant_id"]].drop_duplicates(), unique["site"].dropna().nunique()
    yield f"{_plural(len(unique), 'scan')} of {_plural(len(people), 'participant')} at {_plural(sites, 'site')}."
    for method in evaluation.methods:
        of_method = scans[scans["method"] == method]
        done = of_method["state"].isin(["done", "cached"]).sum()
        failed = f", {len(of_method) - done} not" if done < len(of_method) else ""
        yield f"{method}: {done} corrected{failed}."
    if unsited := int(unique["site"].isna().sum()):
        yield f"{_plural(unsited, 'scan')} without a site: in the overall table, not in the site table."
    if evaluation.problems:
        yield f"{_plural(len(evaluation.problems), 'problem')} to look at, listed below."


def _sentence(evaluation: Evaluation, row: dict) -> str:
    """One comparison of a metric in words: which way it went, not whether that is good."""
    key, method, reference = row["metric"], row["method"], row["reference"]
    start = f"{long_name(key)}, {method} against {reference}:"
    if not row["n"]:
        return f"{start} undefined ({row['note']})."
    if row["median_change"]:
        way = "lower" if row["median_change"] < 0 else "higher"
        change = f"{way} by {_size(row)} (median)"
    else:
        change = "no change in the median"
    parts = [f"{start} {change}; {_ways(row)} of {_plural(int(row['n']), 'scan')}"]
    if reference == BEFORE or row["p_holm"] is not None:
        parts.append(_test(row))
    if reference == BEFORE:
        parts.append(_sites_lower(evaluation, key, method))
    return "; ".join(part for part in parts if part) + "."


def _size(row: dict) -> str:
    percent = row["median_change_percent"]
    return _number(abs(row["median_change"])) if _none(percent) else f"{abs(percent):.2g}%"


def _ways(row: dict) -> str:
    tied = f", equal in {int(row['n_tied'])}" if row["n_tied"] else ""
    return f"lower in {int(row['n_fell'])}, higher in {int(row['n_rose'])}{tied}"


def _test(row: dict) -> str:
    if _none(row["p_holm"]):
        return f"not tested: {row['note']}"
    return f"effect size {row['effect_size']:+.2f}, p {_p(row['p_holm'])} (Holm)".replace("-", "−")


def _sites_lower(evaluation: Evaluation, key: str, method: str) -> str:
    sites = evaluation.sites
    if not len(sites):
        return ""
    rows = sites[(sites["metric"] == key) & (sites["method"] == method) & (sites["reference"] == BEFORE)]
    rows = rows[rows["n"] > 0]
    return f"the median is lower at {int((rows['median_change'] < 0).sum())} of {_plural(len(rows), 'site')}"


def _cautions(evaluation: Evaluation) -> Iterator[str]:
    """What to know before the numbers are read."""
    counts = evaluation.sites.groupby("site")["n_scans"].max()
    few = [str(site) for site, n in counts.items() if n < FEWEST_SCANS]
    if few:
        names = ", ".join(few[:FEW]) + (f" and {len(few) - FEW} more" if len(few) > FEW else "")
        yield (
            f"{_plural(len(few), 'site')} with fewer than {FEWEST_SCANS} scans ({names}): too few for a test or an "
            "interval of their own; their medians are shown."
        )


def _reading() -> list[str]:
    return [
        *reading(),
        "Tests are Wilcoxon signed-rank tests of the changes, two-sided; p values are adjusted by Holm's method over "
        "their table. Effect size: matched-pairs rank-biserial correlation, −1 if all scans fell, +1 if all rose.",
        "Scans of one site share a scanner and are not independent. The rows of the unit «site» take each site's "
        "median as one value: look there before trusting a small p value.",
        "By site, a star marks an adjusted p value below 0.05.",
        "All numbers: verdicts.tsv, scans.tsv, sites.tsv, overall.tsv, problems.tsv, each with a JSON file that "
        "explains it.",
    ]


# --- tables


def _verdicts(verdicts: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The judge's verdicts: counts of scans, and what holds for all of them."""
    heads = ["contrast", "method", "against", "judged", "better", "worse", "within noise", "cannot tell", "same"]
    counts = ("n_better", "n_worse", "n_within_noise", "n_cannot_tell", "n_same")
    rows = [[*heads, "over all scans"]]
    for row in map(better_first, verdicts):
        judged = row["n_scans"] - row["n_not_judged"]
        numbers = [str(row[name]) for name in counts]
        rows.append([row["suffix"], row["method"], row["reference"], str(judged), *numbers, over_cohort(row)])
    return rows


def _overall(overall: pd.DataFrame) -> list[list[str]]:
    heads = ["metric", "method", "reference", "unit", "n", "median, reference", "median, method", "median change"]
    rows = [[*heads, "95% interval", "lower / higher", "effect size", "p (Holm)"]]
    for row in overall.to_dict("records"):
        interval = NONE if _none(row["ci_low"]) else f"{_number(row['ci_low'])} to {_number(row['ci_high'])}"
        ways = f"{int(row['n_fell'])} / {int(row['n_rose'])}" if row["n"] else NONE
        effect = NONE if _none(row["effect_size"]) else f"{row['effect_size']:+.2f}".replace("-", "−")
        p = NONE if _none(row["p_holm"]) else _p(row["p_holm"]).removeprefix("= ")
        numbers = [_number(row[name]) for name in ("median_reference", "median_method", "median_change")]
        named = [long_name(row["metric"]), row["method"], row["reference"], row["unit"], str(int(row["n"]))]
        rows.append([*named, *numbers, interval, ways, effect, p])
    return rows


def _by_site(evaluation: Evaluation) -> list[list[str]]:
    """One row a site: the judge's counts of each method, and its changes, with a star where p is below 0.05."""
    keys = shown_metrics("image")
    judged: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in evaluation.site_verdicts:
        if row["reference"] == ACQUIRED:
            judged.setdefault((row["site"], row["method"]), []).append(row)
    heads = [f"judge, {method}: better / worse / undecided" for method in evaluation.methods]
    heads += [f"{long_name(key)}, {method}" for key in keys for method in evaluation.methods]
    rows = [["site", "scans", *heads]]
    if not len(evaluation.sites):
        return rows
    before = evaluation.sites[evaluation.sites["reference"] == BEFORE]
    for site, group in before.groupby("site", sort=True):
        cells = {(row["metric"], row["method"]): row for row in group.to_dict("records")}
        count = str(int(group["n_scans"].max()))
        counts = [_counted(judged.get((site, method), [])) for method in evaluation.methods]
        rows.append([str(site), count, *counts, *(_change(cells[key, m]) for key in keys for m in evaluation.methods)])
    return rows


def _counted(rows: Sequence[Mapping[str, Any]]) -> str:
    """A site's counts, of each contrast apart."""
    counts = {
        row["suffix"]: f"{row['n_better']} / {row['n_worse']} / {undecided(row)}"
        for row in rows
        if row["n_not_judged"] < row["n_scans"]
    }
    if len(rows) > 1:
        counts = {suffix: f"{suffix} {text}" for suffix, text in counts.items()}
    return ", ".join(counts.values()) or NONE


def _change(row: dict) -> str:
    percent = row["median_change_percent"]
    if _none(percent):
        return NONE
    star = "*" if not _none(row["p_holm"]) and row["p_holm"] < 0.05 else ""
    fewer = f" (n = {int(row['n'])})" if row["n"] < row["n_scans"] else ""
    return f"{percent:+.1f}{star}{fewer}".replace("-", "−")


def _problems(evaluation: Evaluation) -> Iterator[Block]:
    if not evaluation.problems:
        return
    yield Block("heading", "Problems")
    counts = Counter(kind for kind, _, _ in evaluation.problems)
    for kind, count in counts.items():
        texts = [f"{where}: {text}" for other, where, text in evaluation.problems if other == kind]
        rest = [f"... and {count - FEW} more, in problems.tsv"] if count > FEW else []
        yield Block("text", f"{kind[0].upper()}{kind[1:]} ({count})")
        yield Block("list", texts[:FEW] + rest)


# --- numbers as text


def _none(value) -> bool:
    return value is None or value != value  # pandas' undefined is NaN


def _number(value) -> str:
    return NONE if _none(value) else f"{value:.3g}".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


# --- Markdown and HTML


def to_markdown(blocks: Iterable[Block], figure: str) -> str:
    """The summary as Markdown; ``figure`` is the picture's file name beside it."""
    lines: list[str] = []
    for block in blocks:
        if block.kind in ("title", "heading"):
            lines.append(f"{'#' if block.kind == 'title' else '##'} {_escaped(block.content)}")
        elif block.kind == "text":
            lines.append(_escaped(block.content))
        elif block.kind == "list":
            lines.append("\n".join(f"- {_escaped(item)}" for item in block.content))
        elif block.kind == "figure":
            lines.append(f"![{_escaped(block.content)}]({figure})")
        else:
            head, *rows = [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in block.content]
            lines.append("\n".join([head, f"|{' --- |' * len(block.content[0])}", *rows]))
    return "\n\n".join([*lines, f"Made by biascorr_pydra {__version__}."]) + "\n"


def _escaped(text: str) -> str:
    """Names and messages come from outside: nothing in them may act as Markdown or HTML."""
    text = " ".join(str(text).split())
    for mark in "\\|`*_[]<&":
        text = text.replace(mark, f"\\{mark}")
    return text


STYLE = """
:root { color-scheme: light; --ink: #1c2328; --soft: #5a6670; --line: #d9dee2; --paper: #fff; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ink: #e6eaed; --soft: #a9b3ba; --line: #39424a; --paper: #14181b; }
  img { filter: invert(.92) hue-rotate(180deg); }
}
body { margin: 0 auto; padding: 1.2rem 2rem 4rem; max-width: 90rem; color: var(--ink); background: var(--paper);
       font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.65rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
p, li { max-width: 62rem; overflow-wrap: anywhere; } img { max-width: 100%; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: bottom; }
thead th { border-bottom: 2px solid var(--ink); } figcaption, .soft { color: var(--soft); font-size: .875rem; }
"""


def to_html(blocks: Iterable[Block], picture: bytes | None) -> str:
    """The summary as one HTML file that loads nothing else."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>Bias correction, site by site</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(_html(block, picture) for block in blocks)
        + f'\n<p class="soft">Made by biascorr_pydra {__version__}.</p>\n</body>\n</html>\n'
    )


def _html(block: Block, picture: bytes | None) -> str:
    if block.kind == "list":
        return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in block.content)}</ul>"
    if block.kind == "table":
        head, *rows = block.content
        cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table></div>'
    text = html.escape(block.content)
    if block.kind == "figure":
        source = base64.b64encode(picture or b"").decode()
        return (
            f'<figure><img src="data:image/png;base64,{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
        )
    return {"title": f"<h1>{text}</h1>", "heading": f"<h2>{text}</h2>", "text": f"<p>{text}</p>"}[block.kind]
