"""The recipes of CONTRIBUTING.md, read from the page and followed literally in a copy of the package.

A comment above a block says what is done with it:

``<!-- write PATH -->``   the block becomes the file PATH, which did not exist
``<!-- append PATH -->``  the block is added at the end of PATH
``<!-- change PATH -->``  the block is a diff: the lines with ``-`` or a space stand in PATH once, and
                          those with ``+`` or a space take their place
``<!-- run -->``          the block is run by bash in the copy
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sources import ROOT

STEP = re.compile(r"^<!-- (write|append|change|run) ?(\S*) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COPIED = ("biascorr_pydra", "tests", "bids_examples/phantom", "workflows", "pyproject.toml", "CHANGES.md", "README.md")
# The programs that recipes run, as this Python starts them.
COMMANDS = {
    "python": "",
    "pytest": "-m pytest",
    "biascorr": "-c 'from biascorr_pydra.interfaces.cli.main import main; main()'",
    "pydra": "-c 'from biascorr_pydra.interfaces.pydra.run import main; main()'",
}
NAMESPACES = "biascorr_pydra/interfaces/pydra/namespaces"


@dataclass(frozen=True)
class Step:
    """One block of a recipe: what is done, with which file (empty for a command), and the block's text."""

    action: str
    path: str
    text: str


@dataclass
class Copy:
    """A copy of the package, and what was done to it."""

    folder: Path
    edited: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def follow(self, steps: list[Step]) -> None:
        """Do each step; a command that fails ends the recipe with what it printed."""
        for step in steps:
            if step.action == "run":
                self.run("bash", "-euo", "pipefail", "-c", step.text)
            else:
                self.write(step)

    def write(self, step: Step) -> None:
        path = self.folder / step.path
        if step.action == "write":
            assert not path.exists(), f"{step.path} is there already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text)
            self.written.append(step.path)
            return
        before = path.read_text()
        after = f"{before}\n\n{step.text}" if step.action == "append" else changed(before, step.text, step.path)
        path.write_text(after)
        self.edited.append(step.path)

    def run(self, *command: str) -> str:
        """What a command prints; the copy's package comes before the installed one."""
        paths = [self.folder, self.folder / NAMESPACES]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]]),
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
            "HOME": str(self.folder / "home"),
            "NO_ET": "1",
        }
        answer = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)
        assert answer.returncode == 0, f"{' '.join(command)}\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout


def recipe(title: str) -> list[Step]:
    """The steps of the section of that title."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    section = page.split(f"\n### {title}\n", 1)[1]
    section = re.split(r"\n##+ ", section, maxsplit=1)[0]
    return [Step(*parts) for parts in STEP.findall(section)]


def copy_to(folder: Path) -> Copy:
    """A copy of what the recipes need; weights are linked, not copied."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), copy_function=link_or_copy)
        else:
            shutil.copy(source, target)
    (folder / "home").mkdir()
    (folder / "bin").mkdir()
    for name, start in COMMANDS.items():
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} "$@"\n')
        command.chmod(0o755)
    return Copy(folder)


def link_or_copy(source: str, target: str) -> None:
    if source.endswith((".safetensors", ".nii.gz")):
        Path(target).symlink_to(source)
    else:
        shutil.copy(source, target)


def changed(text: str, diff: str, path: str) -> str:
    """The text with the lines of a diff changed; they must stand in it exactly once."""
    lines = diff.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in "- ")
    new = "".join(line[1:] for line in lines if line[0] in "+ ")
    assert text.count(old) == 1, f"{path} has these lines {text.count(old)} times, not once:\n{old}"
    return text.replace(old, new)
