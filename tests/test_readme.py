"""The README keeps up with the package."""

import re
from pathlib import Path

from biascorr_pydra.correctors import method_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_linked_file_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/n4.md" in links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_every_method_is_named():
    assert [name for name in method_names() if f"| `{name}`" not in README] == []


def test_it_stays_short_and_begins_with_the_two_commands():
    lines = README.splitlines()
    assert len(lines) < 150
    first_screen = "\n".join(lines[:30])
    assert "pydra run workflows/correct_bids.py --bids-dir" in first_screen and "&& pytest" in first_screen


def test_no_placeholder_is_left():
    assert not re.search(r"^[A-Z]{4,}$", README, re.MULTILINE)
