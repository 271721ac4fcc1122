"""Files are short, say what they are for, and all reach the wheel."""

import ast
import fnmatch
import tomllib
from pathlib import Path

import pytest
from setuptools import find_namespace_packages
from sources import PACKAGE, ROOT, Source, source_of, sources

LONGEST = 400


def test_no_file_is_too_long():
    lengths = {str(source): source.text.count("\n") for source in sources()}
    too_long = {path: lines for path, lines in lengths.items() if lines > LONGEST}
    assert too_long == {}


def without_docstring(files: tuple[Source, ...]) -> list[str]:
    return [str(source) for source in files if source.text.strip() and not ast.get_docstring(source.tree)]


def test_every_module_says_what_it_is_for():
    assert without_docstring(sources()) == []
    assert without_docstring((source_of(Path("a.py"), "x = 1\n"),)) == ["a.py"]


def in_the_wheel(pyproject: dict) -> set[Path]:
    """The files that setuptools puts into the wheel, by its own search for packages and the patterns for data files."""
    tools = pyproject["tool"]["setuptools"]
    patterns = tools["package-data"]["*"]
    kept = set()
    for where in tools["packages"]["find"]["where"]:
        rules = tools["packages"]["find"]
        for package in find_namespace_packages(str(ROOT / where), include=rules["include"], exclude=rules["exclude"]):
            for path in (ROOT / where / package.replace(".", "/")).iterdir():
                if path.suffix == ".py" or any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
                    kept.add(path)
    return kept


def test_every_file_of_the_package_is_in_the_wheel():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    kept = in_the_wheel(pyproject)
    assert sorted(files - kept) == []
    suffixes = {path.suffix for path in kept}
    assert {".py", ".safetensors", ".json", ".html", ".css", ".js"} <= suffixes
    assert PACKAGE / "py.typed" in kept


@pytest.mark.parametrize("pattern", ["*.css", "*.html", "*.safetensors", "py.typed"])
def test_a_pattern_left_out_is_noticed(pattern):
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    data = pyproject["tool"]["setuptools"]["package-data"]
    kept = in_the_wheel(pyproject)
    data["*"].remove(pattern)
    lost = kept - in_the_wheel(pyproject)
    assert lost and all(fnmatch.fnmatch(path.name, pattern) for path in lost)


def test_licence_files_exist():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert [path for path in pyproject["project"]["license-files"] if not (ROOT / path).is_file()] == []
