"""Draw docs/architecture.png: the way of one image, and of one cohort, through the package.

    python docs/make_architecture.py

Each box names the module that does the step; tests/house/test_pages.py checks that every one of them exists.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

OUT = Path(__file__).with_name("architecture.png")
INK = "#1c2733"
DATA, STEP, CHOICE, FACE = "#e7ebf0", "#d3e6f5", "#fbe3c0", "#dcefd9"
WIDTH, HEIGHT = 2.4, 1.5

# Column and row of the middle of a box; what stands in it; the module; its color.
IMAGE = {
    "faces": (0, 0, "a face is called", "interfaces: .cli\n.pydra .nipype", FACE),
    "options": (1, 0, "options are read\nand checked", "correction.options", STEP),
    "case": (2, 0, "image, mask and scan\nare loaded once", "correction.case", STEP),
    "estimate": (3, 0, "a method estimates\nthe log field", "methods.NAME.corrector", STEP),
    "decide": (4, 0, "is the field borne out\nby the image?", "correction.decide\nquality", CHOICE),
    "divide": (5, 0, "image / field, at\nfull resolution", "correction.divide", STEP),
    "record": (6, 0, "image, field and\nrecord are written", "correction.record\nimages.files", DATA),
}
COHORT = {
    "index": (0, 0, "scans of a BIDS\ndata set are listed", "bids.jobs", DATA),
    "plan": (1, 0, "what is missing\nor has changed", "cohort.plan", STEP),
    "workflow": (2, 0, "one node per scan,\nwith what it needs", "interfaces.pydra.cohort", FACE),
    "workers": (3, 0, "nodes are placed on\nCPUs, GPUs, hosts", "workers: .lanes\n.slurm .dask", FACE),
    "scan": (4, 0, "brain, field, tissue,\nmetrics of one scan", "interfaces.pydra.scan", STEP),
    "publish": (5, 0, "outputs get their\nnames, all or none", "cohort.publish\nbids.outputs", DATA),
    "report": (6, 0, "status, tables\nand pages", "cohort.status\nreport", DATA),
}
DX, DY = 2.82, 2.2


def place(column: float, row: float, top: float) -> tuple[float, float]:
    return column * DX, top - row * DY


def box(ax, x: float, y: float, text: str, module: str, color: str) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2),
            WIDTH,
            HEIGHT,
            boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=color,
            edgecolor=INK,
            linewidth=0.9,
        )
    )
    ax.text(x, y + 0.25, text, ha="center", va="center", fontsize=9.6, color=INK, linespacing=1.15)
    ax.text(x, y - 0.44, module, ha="center", va="center", fontsize=8.2, color="#27506e", family="monospace")


def arrow(ax, start: tuple[float, float], end: tuple[float, float], curve: float = 0.0) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "linewidth": 1.1, "color": INK, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={curve}", **style))


def chain(ax, steps: dict, top: float) -> dict[str, tuple[float, float]]:
    """The boxes of one way, an arrow from each to the next; where each of them stands."""
    places = {name: place(column, row, top) for name, (column, row, *_) in steps.items()}
    for name, (_, _, text, module, color) in steps.items():
        box(ax, *places[name], text, module, color)
    names = list(steps)
    for before, after in pairwise(names):
        (x, y), (to_x, to_y) = places[before], places[after]
        arrow(ax, (x + WIDTH / 2 + 0.04, y), (to_x - WIDTH / 2 - 0.04, to_y))
    return places


def note(ax, x: float, y: float, text: str, ha: str = "center") -> None:
    ax.text(x, y, text, ha=ha, va="center", fontsize=9, color=INK, linespacing=1.3)


def draw() -> None:
    """Draw both ways and save the picture."""
    figure, ax = plt.subplots(figsize=(13.6, 6.6), dpi=130)
    left, right = -WIDTH / 2, 6 * DX + WIDTH / 2
    frame = FancyBboxPatch(
        (left + DX - 0.15, 3.1), right - left - DX + 0.3, 3.45, boxstyle="round,pad=0,rounding_size=0.2"
    )
    frame.set(facecolor="#f7f9fb", edgecolor="#9fb0bf", linewidth=0.9, linestyle=(0, (5, 3)), zorder=0)
    ax.add_patch(frame)
    note(ax, left + DX + 0.05, 6.22, "correct_file: one image by one method", ha="left")
    image = chain(ax, IMAGE, top=4.9)
    cohort = chain(ax, COHORT, top=0.9)
    ax.text(left, 6.2, "One image", fontsize=13, weight="bold", color=INK)
    ax.text(left, 2.1, "One cohort", fontsize=13, weight="bold", color=INK)

    # Back from the gate to the fallback method, and past the division.
    x, y = image["decide"]
    to_x, _ = image["estimate"]
    under, over = y - HEIGHT / 2 - 0.04, y + HEIGHT / 2 + 0.04
    arrow(ax, (x - 0.3, under), (to_x + 0.3, under), curve=-0.3)
    note(ax, (x + to_x) / 2, under - 0.6, "no, and a fallback is named: its field is estimated")
    end_x, _ = image["record"]
    arrow(ax, (x + 0.35, over), (end_x - 0.2, over), curve=-0.08)
    note(ax, (x + end_x) / 2 + 0.1, over + 0.45, "no: the image is passed on as it is, its field is 1")
    note(ax, (x + image["divide"][0]) / 2, y + 0.2, "yes")

    # The step of a cohort that corrects is the whole upper row.
    scan_x, scan_y = cohort["scan"]
    arrow(ax, (scan_x, scan_y + HEIGHT / 2 + 0.04), (scan_x, 3.08))
    note(ax, scan_x + 0.2, 2.4, "once for each method", ha="left")
    (x, y), (to_x, _) = cohort["report"], cohort["plan"]
    arrow(ax, (x, y - HEIGHT / 2 - 0.04), (to_x, y - HEIGHT / 2 - 0.04), curve=-0.07)
    note(ax, (x + to_x) / 2, -0.8, "the same command again goes on from what is there")

    ax.set_xlim(left - 0.2, right + 0.25)
    ax.set_ylim(-1.1, 6.7)
    ax.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    figure.savefig(OUT)
    plt.close(figure)


if __name__ == "__main__":
    draw()
