"""Numbers, times and counts as the pages' words."""

from __future__ import annotations

__all__ = ["NONE", "STEP_NAMES", "hours", "number", "p_value", "percent", "plural", "seconds"]

NONE = "n/a"
STEP_NAMES = {"skull_strip": "skull stripping", "correct": "correction"}


def number(value: float | None) -> str:
    """Four significant digits."""
    return NONE if value is None else f"{value:#.4g}".rstrip(".").replace("-", "−") if value else "0"


def percent(value: float | None) -> str:
    """A change with its sign and one decimal."""
    if value is None:
        return NONE
    return "±0.0%" if abs(value) < 0.05 else f"{value:+.1f}%".replace("-", "−")


def seconds(value: float | None) -> str:
    """A run time."""
    if value is None:
        return NONE
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def hours(value: float) -> str:
    """A total of run times."""
    return f"{value:.1f} h" if value >= 1 else f"{60 * value:.1f} min"


def p_value(value: float | None) -> str:
    """A p value, none smaller than can be told apart by anyone."""
    if value is None:
        return NONE
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def plural(n: int, noun: str) -> str:
    """A number and its noun: 1 scan, 2 scans, 1,000 scans.

    Examples
    --------
    >>> plural(1, "scan"), plural(1112, "scan")
    ('1 scan', '1,112 scans')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
