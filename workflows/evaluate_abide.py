"""Correct a multi-site study and compare before and after, by site.

`pydra run workflows/evaluate_abide.py --abide-dir DIR --out-dir OUT [--phenotypic CSV]`
"""

from biascorr_pydra.interfaces.pydra.study import EvaluateAbide
from biascorr_pydra.interfaces.pydra.study_hooks import abide_hooks as hooks

__all__ = ["EvaluateAbide", "hooks"]
