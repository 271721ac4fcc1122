"""The recipes of CONTRIBUTING.md work as they are written, and cost the edits that docs/architecture.md counts."""

import json

import pytest
from recipes import Copy, changed, copy_to, recipe


@pytest.fixture
def copy(tmp_path) -> Copy:
    return copy_to(tmp_path)


@pytest.mark.slow
def test_add_a_corrector(copy):
    copy.follow(recipe("Add a corrector"))
    assert copy.edited == []
    assert (copy.folder / "corrected.nii.gz").exists() and (copy.folder / "field.nii.gz").exists()
    assert "homomorphic" in copy.run("biascorr", "methods")
    listed = "from biascorr_pydra.methods import method_names as m; import biascorr_pydra as b; print(m(), b.__file__)"
    assert "'homomorphic'" in (answer := copy.run("python", "-c", listed)) and str(copy.folder) in answer


@pytest.mark.slow
def test_add_a_published_output(copy):
    copy.follow(recipe("Add a published output"))
    assert sorted(set(copy.edited)) == [
        "biascorr_pydra/bids/outputs.py",
        "biascorr_pydra/cohort/correction.py",
        "biascorr_pydra/interfaces/pydra/cohort.py",
        "biascorr_pydra/interfaces/pydra/study.py",
    ]
    sidecars = list(copy.folder.glob("out/n4/sub-03/ses-1/anat/*_uncertainty.json"))
    assert sidecars and {json.loads(file.read_text())["Method"]["Name"] for file in sidecars} == {"n4"}
    assert "*_uncertainty.*" in (copy.folder / "out/n4/.bidsignore").read_text()


@pytest.mark.slow
def test_add_a_worker(copy):
    copy.follow(recipe("Add a worker"))
    assert copy.edited == []
    states = (copy.folder / "out/status.tsv").read_text().splitlines()[1:]
    assert states and all("done" in row for row in states)
    by_name = "from pydra.workers.fresh import Worker; print(Worker.plugin_name(), Worker.__module__)"
    assert copy.run("python", "-c", by_name).split() == ["fresh", "biascorr_pydra.workers.fresh.worker"]


@pytest.mark.slow
def test_add_a_metric(copy):
    copy.follow(recipe("Add a metric"))
    assert copy.edited == ["biascorr_pydra/metrics/tissues.py"]
    everywhere = """
import json
import numpy as np
from biascorr_pydra.metrics import image_metrics
from biascorr_pydra.report.collect import Cohort
from biascorr_pydra.report.table import columns
data = np.random.default_rng(0).normal(100, 10, (8, 8, 8))
gm, wm = np.indices(data.shape)[0] < 4, np.indices(data.shape)[0] >= 4
names = [column.name for column in columns(Cohort("empty", [], []))]
print(json.dumps([image_metrics(data, gm, wm, voxel_size_mm=(1, 1, 1)), names]))
"""
    values, columns = json.loads(copy.run("python", "-c", everywhere))
    assert -1 < values["white_skew"] < 1
    assert {"white_skew_before", "white_skew_after"} <= set(columns)


@pytest.mark.slow
def test_change_a_default(copy):
    copy.follow(recipe("Change a default"))
    assert copy.edited == ["biascorr_pydra/correction/options.py"]


def test_a_diff_that_does_not_fit_is_noticed():
    assert changed("a\nb\nc\n", " a\n-b\n+d\n", "x.py") == "a\nd\nc\n"
    with pytest.raises(AssertionError, match="0 times"):
        changed("a\nc\n", " a\n-b\n+d\n", "x.py")
    with pytest.raises(AssertionError, match="2 times"):
        changed("b\nb\n", "-b\n", "x.py")
