"""Cohorts on disk: what is to do, what is done, and how finished scans get their names."""
