"""The example plug-in, installed into a folder of its own, and broken ones: fixtures that several folders share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "docs" / "plugin_example"


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory):
    """A folder for PYTHONPATH that docs/plugin_example is installed in."""
    source, folder = tmp_path_factory.mktemp("source") / "example", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source)  # a build leaves files behind
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", folder, source], check=True, timeout=300)
    return folder


@pytest.fixture
def plugin(plugin_folder, monkeypatch):
    """The example plug-in as installed, in this process and in those that it starts."""
    add_to_path(monkeypatch, plugin_folder)
    return "polynomial"


def add_to_path(monkeypatch, folder: Path) -> None:
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))
    for module in folder.glob("*.py"):
        monkeypatch.delitem(sys.modules, module.stem, raising=False)


def write_plugin(folder: Path, package: str, entry_points: dict[str, str], module: str = "") -> None:
    """A package as pip would leave it: a module of its name, and metadata with entry points."""
    metadata = folder / f"{package}-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[biascorr_pydra.methods]", *lines, ""]))
    (folder / f"{package}.py").write_text(module)
