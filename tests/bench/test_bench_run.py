"""The benchmark on disk: what it finds in folders, what it writes, going on after a stop, what it refuses."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import make_phantom

from biascorr_pydra.bench import Sources, find_bids, find_images, plan_cases, run, run_bench
from biascorr_pydra.errors import BIDSError, InvalidParameterError, OutputExistsError
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.interfaces.cli.bench import bench
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Corrector, Estimate
from biascorr_pydra.methods.n4.corrector import N4
from biascorr_pydra.metrics import cjv

EXAMPLES = Path(__file__).parents[2] / "bids_examples"
TIMES = ["seconds", "cpu_seconds", "peak_mib"]
WRITTEN = {"bench.tsv", "summary.tsv", "summary.json", "paired.tsv", "bench.md", "bench.png", "bench.svg", "bench.json"}


@dataclass(frozen=True)
class Fake(Corrector):
    """Finds a smoothed image or, of a scan with a bright corner, nothing but an error."""

    name: ClassVar[str] = "fake"
    version: ClassVar[str] = "1"

    def estimate(self, scan, *, device="cpu", seed=0):
        if scan.data[0, 0, 0] > 1e5:
            raise RuntimeError("the corner\nis bright")
        return Estimate(np.log1p(scan.data / 1000).astype(np.float32))


@dataclass(frozen=True)
class Gridded(Fake):
    """One that works on a grid of its own, and on no other."""

    grid_shape: ClassVar[tuple[int, int, int]] = (20, 20, 20)

    def estimate(self, scan, *, device="cpu", seed=0):
        assert scan.data.shape == self.grid_shape
        return Estimate(LogBiasSpline.spanning(np.zeros((4, 4, 4)), scan.data.shape))


@pytest.fixture
def methods(monkeypatch):
    """'n4' and 'fake', both quick."""
    quick = {"n4": N4(iterations=(2,)), "fake": Fake()}
    monkeypatch.setattr(run, "corrector_of", quick.__getitem__)
    monkeypatch.setattr(run, "get_corrector", lambda name: Fake if name == "fake" else get_corrector(name))
    return ["n4", "fake"]


@pytest.fixture
def undrawn(monkeypatch):
    """Without the figure, which takes longer than all else here."""
    monkeypatch.setattr(run, "draw", lambda rows, kind: None)


@pytest.fixture
def folder(tmp_path):
    """Three scans: all is known of the first, a mask of the second, nothing of the third."""
    root = tmp_path / "scans"
    root.mkdir()
    for number, name in enumerate(("a_T1w", "b_T1w", "c_T2W")):
        phantom = make_phantom((24, 26, 22), voxel_mm=8.0, seed=number)
        nib.save(phantom.image(), root / f"{name}.nii.gz")
        if number < 2:
            nib.save(phantom.image(phantom.brain, np.uint8), root / f"{name}_mask.nii.gz")
        if number == 0:
            nib.save(phantom.image(7 * phantom.bias), root / f"{name}_biasfield.nii.gz")
            nib.save(phantom.image(phantom.dseg, np.uint8), root / f"{name}_dseg.nii.gz")
    return root


def quiet(data, out, **how):
    options = {key: how.pop(key) for key in ("seed", "limit", "select", "draws") if key in how}
    return run_bench(Sources([data], brain="none", **options), out, **how)


def test_a_method_with_a_grid_of_its_own_is_given_that_grid(folder, tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr(run, "corrector_of", {"n4": N4(iterations=(2,)), "fake": Gridded()}.__getitem__)
    monkeypatch.setattr(run, "get_corrector", lambda name: Fake if name == "fake" else get_corrector(name))
    rows = quiet(folder, tmp_path / "out", methods=["n4", "fake"], masks=["none"], select=["a_T1w*"]).rows
    assert rows["error"].replace("", np.nan).isna().all()


def same(one, other):
    pd.testing.assert_frame_equal(one.drop(columns=TIMES), other.drop(columns=TIMES))


# --- finding


def test_bids_truth_is_found_and_is_the_truth():
    images = find_bids(EXAMPLES / "phantom", EXAMPLES / "phantom_truth", ["*sub-03_ses-1_T?w*"])
    assert [item.suffix for item in images] == ["T1w", "T2w"]  # an oblique scan
    assert all({"mask", "dseg", "biasfield"} <= set(item.given) for item in images)
    sources = Sources([EXAMPLES / "phantom"], [EXAMPLES / "phantom_truth"], select=["*sub-03_ses-1_T1w*"])
    (plan,) = plan_cases(sources)
    case = plan.make()
    gm, wm = case.dseg == 1, case.dseg == 2
    assert case.brain_from == "given" and plan.facts["field"] == "true"
    assert cjv(case.data / np.exp(case.log_bias), gm, wm) < 0.7 * cjv(case.data, gm, wm)


def test_images_and_what_lies_beside_them(folder):
    images = find_images(folder)
    assert [(item.name, item.suffix, sorted(item.given)) for item in images] == [
        ("a_T1w.nii.gz", "T1w", ["biasfield", "dseg", "mask"]),
        ("b_T1w.nii.gz", "T1w", ["mask"]),
        ("c_T2W.nii.gz", "T2w", []),
    ]
    cases = [plan.make() for plan in plan_cases(Sources([folder], brain="none"))]
    assert [case.brain_from for case in cases] == ["given", "given", "head"]
    assert [case.log_bias is not None for case in cases] == [True, False, False]
    assert len(list(plan_cases(Sources([folder], brain="none", limit=2)))) == 2
    assert [plan.facts["scan"] for plan in plan_cases(Sources([folder], select=["b_*"]))] == ["b_T1w"]


def test_label_maps_are_known_by_their_values(tmp_path):
    labels = np.zeros((16, 16, 16), np.int16)
    labels[4:12, 4:12, 4:12], labels[6:10, 6:10, 6:10], labels[4] = 3, 2, 24
    nib.save(nib.Nifti1Image(labels, np.diag([8.0, 8, 8, 1])), tmp_path / "seg_1.nii.gz")
    facts = [plan.facts for plan in plan_cases(Sources([tmp_path], heads=["stripped"]))]
    assert len(facts) == 9 and {fact["head"] for fact in facts} == {"stripped"}
    assert {fact["field"] for fact in plan_facts(Sources([tmp_path], kind="images"))} == {"injected"}


def plan_facts(sources):
    return [plan.facts for plan in plan_cases(sources)]


# --- running


def test_a_failing_scan_and_a_failing_method_are_rows_and_the_rest_is_scored(folder, tmp_path, methods):
    (folder / "d_T1w.nii.gz").write_bytes(b"not an image")
    bright = nib.load(folder / "b_T1w.nii.gz")
    data = np.asarray(bright.dataobj).copy()
    data[0, 0, 0] = 2e5
    nib.save(nib.Nifti1Image(data, bright.affine, bright.header), folder / "b_T1w.nii.gz")
    result = quiet(folder, tmp_path / "out", methods=methods)
    errors = result.rows[result.rows["error"].fillna("") != ""].set_index(["scan", "method", "mask"])["error"]
    assert set(errors.index) == {("b_T1w", "fake", mask) for mask in ("none", "brain")} | {
        ("d_T1w", method, mask) for method in methods for mask in ("none", "brain")
    }
    assert "RuntimeError: the corner" in errors["b_T1w", "fake", "none"]
    assert "gzip" in errors["d_T1w", "n4", "none"] and "d_T1w.nii.gz" in errors["d_T1w", "n4", "none"]
    assert (result.measured, result.failed) == (8, 6)
    scored = result.rows[result.rows["residual_cov"].notna()]
    assert set(zip(scored["scan"], scored["kind"], strict=True)) == {
        ("a_T1w", "truth"), ("b_T1w", "pair"), ("c_T2W", "pair"),
    }  # fmt: skip
    assert set(scored[scored["scan"] == "c_T2W"]["mask"]) == {"none"}  # it has no brain mask to give
    assert {path.name for path in (tmp_path / "out").iterdir()} - {".biascorr"} == WRITTEN
    page = (tmp_path / "out" / "bench.md").read_text()
    assert "the corner" in page and "| `fake` | none | 2" in page and "seed 0" in page


def test_a_method_without_its_weights_is_rows_too(folder, tmp_path, methods, undrawn, monkeypatch):
    monkeypatch.setattr(Fake, "weights", "lost")
    result = quiet(folder, tmp_path / "out", methods=methods, limit=1)
    errors = result.rows[result.rows["method"] == "fake"]["error"]
    assert (result.measured, result.failed) == (2, 2) and errors.str.contains("no such weights").all()


def test_a_rerun_goes_on_where_it_stopped(folder, tmp_path, methods, undrawn):
    out = tmp_path / "out"
    first = quiet(folder, out, methods=["n4"])
    assert first.measured == 5
    again = quiet(folder, out, methods=["n4"])
    assert (again.measured, again.kept) == (0, 5)
    pd.testing.assert_frame_equal(first.rows, again.rows, check_dtype=False)
    more = quiet(folder, out, methods=methods, limit=1)
    assert (more.measured, more.kept) == (2, 2) and len(more.rows) == 7
    assert len(json.loads((out / "bench.json").read_text())["runs"]) == 2
    fresh = quiet(folder, out, methods=["n4"], overwrite=True)
    assert fresh.measured == 5 and len(fresh.rows) == 5


def test_a_run_that_is_killed_is_gone_on_with(folder, tmp_path, methods, undrawn):
    def stop(line):
        if "b_T1w" in line:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        quiet(folder, out, methods=["n4"], tell=stop)
    result = quiet(folder, out, methods=["n4"])
    assert (result.measured, result.kept) == (3, 2)
    assert "stopped before its end" in (out / "bench.md").read_text()


def test_another_version_or_other_data_are_measured_again(folder, tmp_path, methods, undrawn, monkeypatch):
    out = tmp_path / "out"
    quiet(folder, out, methods=methods)
    monkeypatch.setattr(Fake, "version", "2")
    result = quiet(folder, out, methods=methods)
    assert (result.measured, result.kept) == (5, 5)
    assert set(result.rows[result.rows["method"] == "fake"]["implementation"]) == {"fake 2 no weights"}
    nib.save(make_phantom((24, 26, 22), voxel_mm=8.0, seed=9).image(), folder / "b_T1w.nii.gz")
    result = quiet(folder, out, methods=["n4"])
    assert (result.measured, result.dropped) == (2, 4)
    assert set(result.rows[result.rows["scan"] == "b_T1w"]["method"]) == {"n4"}


def test_the_same_seed_gives_the_same_numbers(folder, tmp_path, methods, undrawn):
    select = ["b_*", "c_*"]  # pairs: the injected field is drawn
    runs = [quiet(folder, tmp_path / name, methods=methods, select=select) for name in ("one", "two")]
    same(runs[0].rows, runs[1].rows)
    other = quiet(folder, tmp_path / "three", methods=["n4"], select=select, seed=1)
    assert not set(other.rows["residual_cov"]) & set(runs[0].rows["residual_cov"])


def test_a_folder_that_is_not_ours_or_of_other_settings_is_left_alone(folder, tmp_path, methods, undrawn):
    quiet(folder, tmp_path / "out", methods=["n4"], limit=1)
    before = (tmp_path / "out" / "bench.tsv").read_bytes()
    with pytest.raises(InvalidParameterError, match="seed 0, now 5"):
        quiet(folder, tmp_path / "out", methods=["n4"], seed=5)
    assert (tmp_path / "out" / "bench.tsv").read_bytes() == before
    (tmp_path / "out" / "bench.json").unlink()
    with pytest.raises(OutputExistsError, match=r"bench\.tsv"):
        quiet(folder, tmp_path / "out", methods=["n4"])
    assert (tmp_path / "out" / "bench.tsv").read_bytes() == before


def test_wrong_input_is_told_before_anything_is_measured(folder, tmp_path, methods):
    (tmp_path / "empty").mkdir()
    for wrong, error, words in (
        ({"data": tmp_path / "nowhere"}, InvalidParameterError, "no such folder"),
        ({"data": tmp_path / "empty"}, InvalidParameterError, "no NIfTI image"),
        ({"data": folder, "select": ["x*"]}, InvalidParameterError, "matching x"),
        ({"data": folder, "masks": ["head"]}, InvalidParameterError, "no such mask"),
        ({"data": EXAMPLES / "phantom", "select": ["x*"]}, (BIDSError, InvalidParameterError), "x"),
    ):
        with pytest.raises(error, match=words):
            quiet(wrong.pop("data"), tmp_path / "out", methods=["n4"], **wrong)
    assert not (tmp_path / "out").exists()


# --- the command


def test_the_command(folder, tmp_path, undrawn):
    out = tmp_path / "out"
    arguments = ["--data", folder, "--out", out, "--method", "n4", "--brain", "none", "--mask", "none"]
    outcome = CliRunner().invoke(bench, [str(word) for word in arguments])
    assert outcome.exit_code == 0, outcome.output
    assert "3 measured, 0 kept, 0 failed" in outcome.output and "a_T1w" in outcome.output
    (folder / "d_T1w.nii.gz").write_bytes(b"")
    outcome = CliRunner().invoke(bench, [str(word) for word in arguments])
    assert outcome.exit_code == 1 and "0 measured, 3 kept, 1 failed" in outcome.output


def test_all_presets_by_one_name():
    names = run.with_presets(["n4:*", "ubc", "n4:antspy", "n4"])
    assert names[0] == "n4" and names[-1] == "ubc" and "n4:antspy" in names and "n4:biascorr" not in names
    assert len(names) == len(set(names)) == 1 + len(get_corrector("n4").presets)


def test_help_does_not_wait_for_torch():
    code = "import sys, biascorr_pydra.interfaces.cli.main, biascorr_pydra.bench\n"
    code += "print({'torch', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
