"""What Pydra's results say when a task has failed."""

import re

__all__ = ["error_line"]

ERROR_LINE = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?([A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt))(?:: (.*))?$")
WRAPPER = re.compile(r"RuntimeError: Workflow job .* failed with errors:")


def error_line(result) -> str:
    """The error that a failed run ended with, in one line.

    Parameters
    ----------
    result : pydra Result, or the exception that the engine raised instead, or None where there is neither
    """
    if isinstance(result, Exception):
        return f"{type(result).__name__}: {result}"
    recorded = (result.errors if result is not None else None) or {}
    lines = "".join(recorded.get("error message", [])).splitlines()
    found = [match.groups() for match in map(ERROR_LINE.match, lines) if match and not WRAPPER.match(match[0])]
    if not found:
        return "ended without a result; its process may have been killed (out of memory?)"
    # What a failed task is reported by again, further out, comes after it.
    name, message = found[0]
    return f"{name}: {message or 'no message'}"
