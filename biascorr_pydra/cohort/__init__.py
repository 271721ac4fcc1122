"""Cohorts: the per-scan workflow over a plan, and what runs, watches and reports it."""

from .abide import EvaluateAbide
from .abide_hooks import abide_hooks
from .hooks import hooks
from .scan import CorrectByMethod, CorrectScan
from .workflow import CorrectBids

__all__ = [
    "CorrectBids",
    "CorrectByMethod",
    "CorrectScan",
    "EvaluateAbide",
    "abide_hooks",
    "hooks",
    "init_bias_correction_wf",
]


def __getattr__(name: str):
    if name == "init_bias_correction_wf":  # needs the extra "fmriprep", which the rest does not
        from .nipype_workflow import init_bias_correction_wf

        return init_bias_correction_wf
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
