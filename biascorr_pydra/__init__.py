"""Bias-field correction of MR images: correctors, cohorts of them, and an honest report of what they did."""

from importlib import import_module

__version__ = "0.1.0"

_LAZY = {
    "correct_image": "correction.correct",
    "correct_file": "single",
    "apply_file": "correction.apply",
    "Correction": "correction.record",
    "BiasCorrError": "errors",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    # Loading torch and antspyx takes seconds; naming the package must not.
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_LAZY])
