"""The README keeps up with the package."""

import re
import runpy
from pathlib import Path

import pytest

from biascorr_pydra.images import nifti
from biascorr_pydra.methods import method_names

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
    assert len(lines) < 160
    first_screen = "\n".join(lines[:30])
    assert "pydra run workflows/correct_bids.py --bids-dir" in first_screen and "&& pytest" in first_screen


def test_no_placeholder_is_left():
    assert not re.search(r"^[A-Z]{4,}$", README, re.MULTILINE)


@pytest.mark.slow
def test_the_workflow_shown_runs(tmp_path, monkeypatch):
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "workflow.define" in block)
    scan = ROOT / "bids_examples/phantom/sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz"
    (tmp_path / "shown.py").write_text(
        code.replace('"sub-01_T1w.nii.gz"', f'"{scan}"').replace("\nPrepare(", "\nout = Prepare(")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shown = runpy.run_path(str(tmp_path / "shown.py"))
    assert nifti.load(str(shown["out"])).shape == nifti.load(scan).shape
