"""The correction methods: what each must fulfil, and one folder for each."""

from .registry import DEFAULT_METHOD, REFERENCE_METHOD, get_corrector, get_training, method_names, training_names

__all__ = ["DEFAULT_METHOD", "REFERENCE_METHOD", "get_corrector", "get_training", "method_names", "training_names"]
