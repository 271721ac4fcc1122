"""Cohorts: the per-scan workflow over a plan, and what runs, watches and reports it."""

from .abide import EvaluateAbide
from .abide_hooks import abide_hooks
from .hooks import hooks
from .scan import CorrectByMethod, CorrectScan
from .workflow import CorrectBids

__all__ = ["CorrectBids", "CorrectByMethod", "CorrectScan", "EvaluateAbide", "abide_hooks", "hooks"]
