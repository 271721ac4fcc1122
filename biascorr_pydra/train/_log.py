"""The log of a training run: one line of a TSV file for every few steps."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Log"]


class Log:
    """Means of the steps since the last line, as lines of a TSV file; lines beyond a resumed step are dropped."""

    def __init__(self, file: Path, resumed_step: int | None):
        self.file, self.rows = file, []
        if resumed_step is None:
            file.unlink(missing_ok=True)
        elif file.exists():
            lines = file.read_text().splitlines(keepends=True)
            kept = [line for line in lines[1:] if line.endswith("\n") and int(line.split("\t")[0]) <= resumed_step]
            file.write_text("".join([*lines[:1], *kept]))

    def add(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def write(self, step: int, seconds: float) -> None:
        means = {key: sum(row[key] for row in self.rows) / len(self.rows) for key in self.rows[0]}
        self.rows = []
        with open(self.file, "a") as stream:
            if stream.tell() == 0:
                stream.write("\t".join(["step", "seconds", *means]) + "\n")
            stream.write("\t".join([str(step), f"{seconds:.0f}", *[f"{value:.4f}" for value in means.values()]]) + "\n")
