"""Paired comparisons, confidence intervals and outliers."""
