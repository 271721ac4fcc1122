"""The correction methods: what each must fulfil, and one folder for each.

What the author of a method needs, here or in another package, is :class:`Corrector` with :class:`Scan`,
:class:`Estimate`, :class:`LogBiasSpline` and :class:`Reference`; see :mod:`biascorr_pydra.methods.corrector`.
"""

from biascorr_pydra.images.field import LogBiasSpline

from .corrector import Corrector, Estimate, Scan
from .inner import inner_corrector
from .reference import Reference
from .registry import DEFAULT_METHOD, REFERENCE_METHOD, get_corrector, get_training, method_names, training_names
from .spec import MethodSpec

__all__ = [
    "DEFAULT_METHOD",
    "REFERENCE_METHOD",
    "Corrector",
    "Estimate",
    "LogBiasSpline",
    "MethodSpec",
    "Reference",
    "Scan",
    "get_corrector",
    "get_training",
    "inner_corrector",
    "method_names",
    "training_names",
]
