"""The cohort's report: ``report.html``, one file that needs no network, and tables with their data dictionaries.

Everything is read from written files, so a report can be made again at any time, also while a cohort is still running.
Missing and damaged files are reported in the page; they never stop it.
"""

from biascorr_pydra.report.study.design import EvaluationPaths, check_evaluation, write_design

from .state import ReportPaths, is_up_to_date
from .write import write_report

__all__ = [
    "EvaluationPaths",
    "ReportPaths",
    "check_evaluation",
    "is_up_to_date",
    "write_design",
    "write_report",
]
