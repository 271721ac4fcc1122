"""Cohorts: the per-scan workflow over a plan, and what runs, watches and reports it."""

from .hooks import hooks
from .scan import CorrectByMethod, CorrectScan
from .workflow import CorrectBids

__all__ = ["CorrectBids", "CorrectByMethod", "CorrectScan", "hooks"]
