"""What Pydra's results say when a task has failed."""

import re
import shutil
from pathlib import Path
from typing import Any

__all__ = ["error_line", "forget_empty_results"]

ERROR_LINE = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?([A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt))(?:: (.*))?$")
CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
MOST_LINES = 5
WRAPPER = re.compile(r"RuntimeError: Workflow job .* failed with errors:")


def error_line(result: Any) -> str:
    """The error that a failed run ended with, in one line.

    Parameters
    ----------
    result : pydra Result, or the exception that the engine raised instead, or None where there is neither
    """
    if isinstance(result, Exception):
        if "Traceback (most recent call last)" not in str(result):
            return f"{type(result).__name__}: {result}"
        # an error of another process, which left no record; between the marks that Pydra looks for
        lines = [line for line in str(result).splitlines() if line.strip() != '"""']
    else:
        recorded = (result.errors if result is not None else None) or {}
        lines = "".join(recorded.get("error message", [])).splitlines()
    error = _innermost(lines)
    if error is None:
        return "ended without a result; its process may have been killed (out of memory?)"
    name, message, rest = error
    ends = (i for i, line in enumerate(rest) if not line.strip() or line.startswith(("Traceback", "See output")))
    continued = " ".join(line.strip() for line in rest[: next(ends, len(rest))][:MOST_LINES])
    return f"{name}: {message or 'no message'} {continued}".strip()


def _innermost(lines: list[str]) -> tuple[str, str | None, list[str]] | None:
    """Name and message of the error that a chain of tracebacks ended in, and the lines that follow it."""
    error = None
    for number, line in enumerate(lines):
        match = ERROR_LINE.match(line)
        if match and not WRAPPER.match(line):
            error = error or (match[1], match[2], lines[number + 1 :])
        elif error and line in CHAINED:
            error = None  # it was the cause of the error that follows
        elif error and line.startswith(("Job '", "RuntimeError: ")):
            break  # from here on, the same is reported again further out
    return error


def forget_empty_results(cache_root: Path) -> None:
    """Remove results that hold no outputs and no error, with their folders and locks.

    Pydra writes such a result for a task that a KeyboardInterrupt ended, and would go on with its missing outputs.
    """
    import cloudpickle

    from biascorr_pydra.workers.engine import RESULT_FILE

    for file in Path(cache_root).glob(f"*/{RESULT_FILE}"):
        try:
            result = cloudpickle.loads(file.read_bytes())
            empty = result.outputs is None and not result.errored
        except Exception:  # whatever is in a half-written file
            empty = True
        if empty:
            shutil.rmtree(file.parent, ignore_errors=True)
            Path(f"{file.parent}.lock").unlink(missing_ok=True)
