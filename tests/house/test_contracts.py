"""The import contracts of setup.cfg hold, and a new module that breaks one is noticed the day it is written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sources import PACKAGE, ROOT

# For each contract, a module that does not exist today, and what it must not say.
BREAKS = {
    "Imports run one way": {"images/fresh.py": "from biascorr_pydra.bids import jobs\n", "fresh/__init__.py": ""},
    "No circle inside a folder": {
        "images/here.py": "from . import back\n",
        "images/back.py": "from . import here\n",
    },
    "Pydra stays in its face and the workers": {"interfaces/cli/fresh.py": "def f():\n    import pydra\n"},
    "Nipype's family stays in its face": {"interfaces/pydra/fresh.py": "import nipype\n"},
    "Dask stays in its worker": {"workers/slurm/fresh.py": "import distributed\n"},
    "torch stays where arrays are computed": {"report/fresh.py": "def f():\n    import torch\n"},
    "Methods do not import each other": {
        "methods/fresh/__init__.py": "",
        "methods/fresh/corrector.py": "from biascorr_pydra.methods.n4 import iterate\n",
    },
    "Who may ask for a method by name; a method that does says so in `runs`": {
        "methods/other/__init__.py": "",
        "methods/other/corrector.py": "from biascorr_pydra.methods import get_corrector\n",
    },
    "Workers know what a task needs, not what it does": {"workers/fresh.py": "from biascorr_pydra.bids import jobs\n"},
    "Names, statistics and reports never compute a correction": {
        "report/other.py": "from biascorr_pydra.correction import correct\n"
    },
}

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def check(folder: Path) -> dict[str, str]:
    """KEPT or BROKEN for each contract, for the package that lies in `folder`."""
    answer = subprocess.run(
        [sys.executable, "-c", LINT, "--config", ROOT / "setup.cfg", "--no-cache", "--no-logo"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    return dict(re.findall(r"^(.+?) (KEPT|BROKEN)\b", answer.stdout, re.MULTILINE)) or {
        "error": answer.stdout + answer.stderr
    }


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    sources = [path for path in PACKAGE.rglob("*.py") if "namespaces" not in path.parts]
    for path in sources:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def test_the_contracts_hold_and_new_modules_are_under_them(copy):
    assert check(copy) == dict.fromkeys(BREAKS, "KEPT")
    for files in BREAKS.values():
        for name, text in files.items():
            (copy / PACKAGE.name / name).parent.mkdir(exist_ok=True)
            (copy / PACKAGE.name / name).write_text(text)
    assert check(copy) == dict.fromkeys(BREAKS, "BROKEN")
