"""Pydra: tasks, the cohort and study workflows, and `pydra run`."""
