"""The examples in docstrings give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest
from sources import sources

OPTIONAL = {"nipype": "biascorr_pydra/interfaces/nipype", "distributed": "biascorr_pydra/workers/dask"}
EXAMPLES = [source.path for source in sources() if source.path.parts[0] == "biascorr_pydra" and ">>> " in source.text]


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_examples_run(path: Path, tmp_path, monkeypatch):
    for extra, folder in OPTIONAL.items():
        if path.is_relative_to(folder):
            pytest.importorskip(extra)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(".".join(path.with_suffix("").parts))
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_there_are_examples_for_what_people_call_first():
    examples = {path.as_posix().removeprefix("biascorr_pydra/") for path in EXAMPLES}
    assert examples >= {
        "correction/options.py",
        "images/field.py",
        "methods/spec.py",
        "resources.py",
        "statistics/compare.py",
    }
