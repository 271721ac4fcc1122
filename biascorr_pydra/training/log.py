"""The log of a training run, one line of a TSV file for every few steps, and its plot."""

from __future__ import annotations

from pathlib import Path

from biascorr_pydra.images.files import write_atomic, write_text

__all__ = ["Log", "plot_log", "read_log"]


class Log:
    """Means of the steps since the last line, as lines of a TSV file."""

    def __init__(self, file: Path):
        self.file = file
        self.rows: list[dict[str, float]] = []

    def cut(self, step: int | None) -> None:
        """Drop what a run that goes on after ``step`` will write again; everything where it begins anew (None)."""
        if step is None:
            self.file.unlink(missing_ok=True)
        elif self.file.exists():
            lines = self.file.read_text().splitlines(keepends=True)
            kept = [line for line in lines[1:] if line.endswith("\n") and int(line.split("\t")[0]) <= step]
            text = "".join([*lines[:1], *kept])
            write_text(self.file, text)

    def add(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def write(self, step: int, seconds: float) -> dict[str, float]:
        """Write the means of what was added, and return them."""
        means = {key: sum(row[key] for row in self.rows) / len(self.rows) for key in self.rows[0]}
        self.rows = []
        with open(self.file, "a") as stream:
            if stream.tell() == 0:
                stream.write("\t".join(["step", "seconds", *means]) + "\n")
            stream.write("\t".join([str(step), f"{seconds:.0f}", *[f"{value:.5g}" for value in means.values()]]) + "\n")
        return means


def read_log(file: Path) -> dict[str, list[float]]:
    """The columns of a log by name; empty where nothing was logged."""
    if not file.is_file():
        return {}
    names, *rows = [line.split("\t") for line in file.read_text().splitlines()] or [[]]
    return {name: [float(row[i]) for row in rows] for i, name in enumerate(names)} if rows else {}


def plot_log(log_file: Path, out_file: Path, *, title: str) -> None:
    """Draw every column of a log over the steps, with a running mean, as a PNG."""
    from matplotlib.figure import Figure

    columns = read_log(log_file)
    names = [name for name in columns if name not in ("step", "seconds")]
    if not names:
        return
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(4 * across, 2.6 * down), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for i, name in enumerate(names):
        axes = figure.add_subplot(down, across, i + 1)
        axes.plot(columns["step"], columns[name], color="0.7", linewidth=0.8)
        axes.plot(columns["step"], _running_mean(columns[name]), color="#0072b2", linewidth=1.5)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
    write_atomic(out_file, lambda stream: figure.savefig(stream, format="png", dpi=100))


def _running_mean(values: list[float]) -> list[float]:
    width = max(1, len(values) // 20)
    return [sum(values[max(0, i - width) : i + 1]) / (i + 1 - max(0, i - width)) for i in range(len(values))]
