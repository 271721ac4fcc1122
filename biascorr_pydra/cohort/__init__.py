"""The cohort engine, for corrections and for normalizations: what is to do, what is done, and finished files' names."""

from .correction import SHARED, CorrectionPlan, Settings, plan_correction
from .plan import Plan, check_out_dir, is_complete, key_of, problems_of, unfinished
from .publish import publish

__all__ = [
    "SHARED",
    "CorrectionPlan",
    "Plan",
    "Settings",
    "check_out_dir",
    "is_complete",
    "key_of",
    "plan_correction",
    "problems_of",
    "publish",
    "unfinished",
]
