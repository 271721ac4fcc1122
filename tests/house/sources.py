"""The Python files of this repository, read once, with what they import and name: what the checks look at."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "biascorr_pydra"


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the repository's root, its text and its syntax tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def folder(self) -> Path:
        """The folder that a leading underscore, or a relative import, in this file is about."""
        return self.path.parent

    def __str__(self) -> str:
        return self.path.as_posix()


@cache
def sources() -> tuple[Source, ...]:
    """Every Python file of the package, the tests, the benchmarks, the example data and the workflows, by name."""
    files = [
        path
        for top in ("biascorr_pydra", "tests", "benchmarks", "bids_examples", "workflows", "docs")
        for path in sorted((ROOT / top).rglob("*.py"))
    ]
    return tuple(source_of(path.relative_to(ROOT), path.read_text()) for path in files)


def source_of(path: Path, text: str) -> Source:
    return Source(path, text, ast.parse(text))


def folder_of_module(module: str) -> Path:
    """The folder that a dotted name lies in, from the root: its own for a package, its parent's for a file."""
    path = Path(*module.split("."))
    return path if (ROOT / path).is_dir() else path.parent


def imported_from(source: Source, node: ast.ImportFrom) -> str:
    """The dotted name of the module behind `from ... import`, with the dots of a relative import resolved."""
    if not node.level:
        return node.module or ""
    folder = source.folder
    for _ in range(node.level - 1):
        folder = folder.parent
    return ".".join([*folder.parts, *([node.module] if node.module else [])])


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
