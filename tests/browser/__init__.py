"""Tests that need the extra "browser" and Chromium: run with `pytest -m browser -n 0`."""
