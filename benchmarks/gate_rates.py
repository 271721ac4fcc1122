"""Verdicts of the do-no-harm gate against the truth: rates, table and curve, and the limits under which least is left.

From the rows that ``gate.py measure`` writes; which see for what counts as help and as harm.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from biascorr_pydra.methods import get_corrector
from biascorr_pydra.quality import LIMITS, decide

#: Residual CoV by which a correction helps or harms.
MARGIN = 0.005
NUMBERS = ("field_range", "gradient_per_mm", "curvature", "sharpening", "support", "contrast_change", "field_sd")


def verdicts(rows: pd.DataFrame, **limits: float) -> pd.Series:
    """The gate's verdict on each row; ``limits`` stand in for some of the gate's own."""
    with mock.patch.dict(LIMITS, {name: LIMITS[name]._replace(value=value) for name, value in limits.items()}):
        verdicts_by_row = [_verdict(row) for row in rows.to_dict("records")]
    return pd.Series(verdicts_by_row, rows.index)


def _verdict(row: dict) -> str:
    numbers = {name: None if pd.isna(row[name]) else row[name] for name in NUMBERS}
    method = row["method"].partition("+")[0].partition(":")[0]
    return decide(numbers, invents=get_corrector(method).invents).verdict


def judged(rows: pd.DataFrame, **limits: float) -> pd.DataFrame:
    """The rows with verdict, what the correction did, and what the brain is left with."""
    gain = rows["before"] - rows["after"]
    did = np.select([gain > MARGIN, gain < -MARGIN], ["helped", "harmed"], "neither")
    verdict = verdicts(rows, **limits)
    left = np.where(verdict == "accepted", rows["after"], rows["before"])
    return rows.assign(did=did, verdict=verdict, left=left)


def rates(fields: pd.DataFrame) -> dict[str, float]:
    """Counts, rates of wrong verdicts, and residual CoV with no correction, all corrected, and as the gate has it."""
    harmed, helped = fields[fields["did"] == "harmed"], fields[fields["did"] == "helped"]

    def share(part: pd.DataFrame, verdict: str) -> float:
        return float((part["verdict"] == verdict).mean()) if len(part) else float("nan")

    return {
        "n": len(fields),
        "harmed": len(harmed),
        "helped": len(helped),
        "wrong accept": share(harmed, "accepted"),
        "wrong reject": share(helped, "rejected"),
        "wrong negligible": share(helped, "negligible"),
        "none": fields["before"].mean(),
        "all": fields["after"].mean(),
        "gate": fields["left"].mean(),
    }


def table(fields: pd.DataFrame) -> str:
    """Rates by method with field and kind of head, and by absurd estimate, as Markdown."""
    lines = []
    as_found = fields[fields["estimate"] == "as found"]
    absurd = fields[fields["estimate"] != "as found"]
    groups = [(f"{m}, field {f}", g) for (m, f), g in as_found.groupby(["method", "field"], sort=False)]
    groups += [(f"{m}, {k} heads", g) for (m, k), g in as_found.groupby(["method", "kind"], sort=False)]
    groups += [(f"**{method}, all**", group) for method, group in as_found.groupby("method", sort=False)]
    groups += [(f"absurd: {kind}", group) for kind, group in absurd.groupby("estimate", sort=False)]
    groups += [("**absurd, all**", absurd)] if len(absurd) else []
    for name, group in groups:
        if not lines:
            lines = ["| estimate | " + " | ".join(rates(group)) + " |", "|---" * (1 + len(rates(group))) + "|"]
        cells = [f"{v:.0f}" if k in ("n", "harmed", "helped") else f"{v:.3f}" for k, v in rates(group).items()]
        lines.append(f"| {name} | " + " | ".join(cells).replace("nan", "–") + " |")
    return "\n".join(lines)


def curve(fields: pd.DataFrame, file: Path) -> None:
    """Share of helping corrections kept against harming ones accepted, as the limit on sharpening moves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), constrained_layout=True)
    as_found, absurd = fields["estimate"] == "as found", fields["estimate"] != "as found"
    groups = [(method, fields[as_found & (fields["method"] == method)]) for method in fields["method"].unique()]
    groups += [("absurd fields", fields[absurd])]
    steps = [-0.6, -0.3, -0.15, -0.05, -0.02, 0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.17, 0.22, 0.3, 0.5, 1]
    styles = zip(["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#000000"], "os^Dv", strict=True)
    for (name, group), (color, marker) in zip(groups, styles, strict=False):
        if group.empty:
            continue
        helped, harmed = group[group["did"] == "helped"], group[group["did"] == "harmed"]
        shares = []
        for step in [*steps, LIMITS["sharpening"].value]:
            accepted = verdicts(group, sharpening=step) == "accepted"
            shares.append((accepted[harmed.index].mean(), accepted[helped.index].mean()))
        *line, here = shares
        axes[0].plot(*zip(*line, strict=True), color=color, lw=1.5, label=name)
        axes[0].plot(*here, marker, color=color, ms=9, mec="white")
    axes[0].set(xlabel="harming corrections accepted", ylabel="helping corrections accepted", xlim=(-0.02, 1.02))
    axes[0].set(ylim=(-0.02, 1.02), title="as the limit on sharpening moves; marks: the gate as it is")
    axes[0].legend(loc="lower right", frameon=False)
    names, width = [name for name, group in groups if len(group)], 0.27
    for number, (key, color) in enumerate((("none", "#bbbbbb"), ("all", "#e69f00"), ("gate", "#0072b2"))):
        heights = [rates(group)[key] for _, group in groups if len(group)]
        label = {"none": "nothing corrected", "all": "everything corrected", "gate": "as the gate has it"}[key]
        axes[1].bar(np.arange(len(names)) + (number - 1) * width, heights, width, color=color, label=label)
    axes[1].set_xticks(range(len(names)), names, rotation=15)
    axes[1].set(ylabel="mean residual CoV in the brain", title="what is left (lower is better)", ylim=(0, 0.25))
    axes[1].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def choose(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean residual CoV under a grid of limits: mean over the methods' own fields and the absurd ones together."""
    lines = []
    for sharpening in (0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.12, 0.15):
        for support in (0.3, 0.4, 0.45, 0.5, 0.55, 0.6):
            done = judged(rows, sharpening=sharpening, support=support)
            as_found, absurd = done[done["estimate"] == "as found"], done[done["estimate"] != "as found"]
            left = as_found.groupby("method")["left"].mean()
            wrong = {key: rates(as_found)[key] for key in ("wrong accept", "wrong reject", "wrong negligible")}
            worst = rates(absurd)["wrong accept"]
            lines.append(
                {
                    "sharpening": sharpening,
                    "support": support,
                    "left": left.mean(),
                    "absurd left": absurd["left"].mean(),
                }
                | wrong
                | {"absurd accepted": worst}
            )
    return pd.DataFrame(lines).sort_values("left")
