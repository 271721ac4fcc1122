"""Methods of other packages: the example in docs/ through every face, and broken ones that break nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from example_plugin import add_to_path, write_plugin
from forked import BIASCORR, program
from small_cohort import run, states

from biascorr_pydra import correct_file, correct_image
from biascorr_pydra.bench import Sources, run_bench
from biascorr_pydra.errors import BrokenMethodError, InvalidMaskError, InvalidParameterError, UnknownMethodError
from biascorr_pydra.images import nifti
from biascorr_pydra.interfaces.cli.main import cli
from biascorr_pydra.methods import Scan, get_corrector, get_training, method_names
from biascorr_pydra.methods.identity import implementation
from biascorr_pydra.methods.registry import clashes, training_names

OUR_OWN = {"ants-n4", "deepem", "deepnormalize", "getnet", "implicit", "n4", "ubc"}
CORRECTOR = """
from typing import ClassVar
from biascorr_pydra.methods import Corrector, Estimate, Reference

class Flat(Corrector):
    name = "flat"
    version = "1"
    summary = "no field"
    references = (Reference("k", "Doe J", "Nothing", "Journal", 2020),)

    def estimate(self, scan, *, device="cpu", seed=0):
        return Estimate(0 * scan.data)
"""


def shell(*arguments, cwd):
    return program(BIASCORR, *arguments, cwd=cwd)


def a_ball_with_a_field(shape=(30, 34, 28)):
    """One tissue, times a field whose log is a quadratic polynomial; the field has mean 1 over the ball."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    ball = x**2 + y**2 + z**2 < 0.8
    bias = np.exp(0.2 * x - 0.3 * y * z + 0.25 * z**2)
    bias /= bias[ball].mean()
    return (1000 * bias * ball).astype(np.float32), ball, bias


# --- the example


def test_the_polynomial_of_a_known_field_is_found(plugin):
    data, ball, bias = a_ball_with_a_field()
    scan = Scan(data, np.ones(data.shape, bool), ball, (4.0, 4.0, 4.0))
    estimate = get_corrector(plugin).from_options().estimate(scan)
    assert np.ptp(estimate.log_bias - np.log(bias)) < 1e-4  # a constant is free
    plane = get_corrector(plugin).from_options("plane").estimate(scan)
    assert np.ptp(plane.log_bias - np.log(bias)) > 0.1


def test_the_example_refuses_what_it_cannot_do(plugin):
    data, ball, _ = a_ball_with_a_field()
    with pytest.raises(InvalidMaskError, match="0 pairs, 9 terms"):
        get_corrector(plugin)().estimate(Scan(data, np.ones(data.shape, bool), ball & False, (4.0,) * 3))
    with pytest.raises(InvalidParameterError, match="1 to 4"):
        get_corrector(plugin).from_options(degree=5)


def test_python_shell_and_pydra_give_the_same_bytes(plugin, phantom_file, tmp_path):
    from biascorr_pydra.interfaces.pydra.tasks import CorrectBias

    record = correct_file(phantom_file, tmp_path / "python.nii.gz", method=plugin, preset="plane")
    assert record.method == "polynomial" and record.parameters["degree"] == 1
    done = shell("correct", phantom_file, "shell.nii.gz", "--method", "polynomial:plane", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    task = CorrectBias(in_file=phantom_file, method=plugin, preset="plane")
    outputs = task(worker="debug", cache_root=tmp_path / "cache")
    expected = (tmp_path / "python.nii.gz").read_bytes()
    assert (tmp_path / "shell.nii.gz").read_bytes() == Path(outputs.out_file).read_bytes() == expected


def test_the_listing_names_it(plugin, tmp_path):
    assert set(method_names()) == OUR_OWN | {plugin}
    done = shell("methods", plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "polynomial 1" in done.stdout and "presets: default, plane" in done.stdout
    assert "parameter degree [2]: Degree of the polynomial, 1 to 4." in done.stdout


def test_listing_loads_no_plugin(plugin, tmp_path):
    code = (
        "import sys; from biascorr_pydra.methods import method_names; assert 'polynomial' in method_names(); "
        "assert 'biascorr_polynomial' not in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_gate_judges_its_fields(plugin, phantom):
    result = correct_image(phantom.image(), mask=phantom.image(phantom.brain), method=plugin)
    assert result.correction.gate["verdict"] == "accepted"
    # Anatomy that varies slowly across the whole brain, and no field: the polynomial follows it, and the gate sees it.
    x = np.linspace(-1, 1, phantom.true.shape[0])[:, None, None]
    noise = np.random.default_rng(0).normal(0, 10, phantom.true.shape)
    steep = np.where(phantom.brain, 1000 * np.exp(4 * x) + noise, 0)
    refused = correct_image(phantom.image(steep), mask=phantom.image(phantom.brain), method=plugin)
    assert refused.correction.gate["verdict"] == "rejected"
    assert np.array_equal(refused.corrected.get_fdata(), steep.astype(np.float32))


def test_the_benchmark_scores_it(plugin, phantom, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    nifti.save(phantom.image(), scans / "a_T1w.nii.gz")
    nifti.save(phantom.image(phantom.brain, np.uint8), scans / "a_T1w_mask.nii.gz")
    bench = run_bench(Sources([scans]), tmp_path / "bench", methods=[plugin], masks=["brain"])
    assert (bench.measured, bench.failed) == (1, 0), bench.rows["error"]
    assert set(bench.rows["implementation"]) == {"polynomial 1 no weights"}


def test_a_cohort_run_corrects_with_it(plugin, dataset):
    done = run(dataset, "--method", plugin)
    assert done.returncode == 0, done.stderr
    assert states(dataset) == ["done"] * 3
    image = dataset.parent / "out/polynomial/sub-01/anat/sub-01_desc-preproc_T1w.json"
    assert json.loads(image.read_text())["Method"]["Name"] == "polynomial"
    again = run(dataset, "--method", plugin)
    assert "0 done, 3 done before, 0 failed" in again.stdout


# --- broken ones


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package that registers methods."""

    def install(package, entry_points, module=""):
        folder = tmp_path / "site" / package
        write_plugin(folder, package, entry_points, module)
        add_to_path(monkeypatch, folder)

    return install


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("flat", "import a_module_that_there_is_not", "ModuleNotFoundError: No module named"),
        ("flat", "raise RuntimeError('no GPU at hand')", "RuntimeError: no GPU at hand"),
        ("flat", "Flat = dict", "is no subclass of biascorr_pydra.methods.Corrector"),
        ("flat", "other = 1", "AttributeError"),
        ("flat", CORRECTOR.replace('version = "1"', ""), "the class states no version"),
        ("flat", CORRECTOR.replace("references =", "papers ="), "the class states no references"),
        ("flat", CORRECTOR.replace("def estimate", "def guess"), "does not define estimate"),
        ("level", CORRECTOR, "calls itself 'flat'"),
        ("Flat_1", CORRECTOR.replace('"flat"', '"Flat_1"'), "small letters"),
        ("flat", CORRECTOR + '    presets = {"default": {"degree": 1}}', "preset 'default' cannot be made"),
    ],
)
def test_a_broken_plugin_is_named_with_its_package_and_breaks_nothing_else(installed, name, module, words):
    installed("brokenpackage", {name: "brokenpackage:Flat"}, module)
    with pytest.raises(BrokenMethodError, match=words) as caught:
        get_corrector(name)
    assert f"method {name!r} of package brokenpackage (brokenpackage:Flat)" in str(caught.value)
    assert isinstance(caught.value, UnknownMethodError)  # whoever expects that no method may be there
    done = CliRunner().invoke(cli, ["methods"])
    assert done.exit_code == 1 and words in done.output
    assert all(f"\n{own} " in f"\n{done.output}" for own in OUR_OWN)
    listed = json.loads(CliRunner().invoke(cli, ["methods", name, "n4", "--json"]).stdout)
    assert words in listed[0]["error"] and listed[1]["name"] == "n4" and "error" not in listed[1]
    assert implementation("n4").startswith("n4 ")


def test_a_broken_plugin_ends_a_correction_with_its_message(installed, phantom_file, tmp_path):
    installed("brokenpackage", {"flat": "brokenpackage:Flat"}, "raise RuntimeError('no GPU at hand')")
    done = shell("correct", phantom_file, "out.nii.gz", "--method", "flat", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "no GPU at hand" in done.stderr and "brokenpackage" in done.stderr
    assert not (tmp_path / "out.nii.gz").exists()


def test_a_method_of_our_own_is_not_replaced(installed):
    installed("takeover", {"n4": "takeover:Flat"}, CORRECTOR.replace('"flat"', '"n4"'))
    assert get_corrector("n4").__module__ == "biascorr_pydra.methods.n4.corrector"
    assert method_names().count("n4") == 1
    assert "package takeover" in str(clashes()["n4"])
    done = CliRunner().invoke(cli, ["methods"])
    assert done.exit_code == 1 and "a method of biascorr_pydra has that name" in done.output


def test_two_packages_with_one_name_are_both_named(installed):
    for package in ("onepackage", "twopackage"):
        installed(package, {"flat": f"{package}:Flat"}, CORRECTOR)
    with pytest.raises(BrokenMethodError, match=r"package and \w+package both register it"):
        get_corrector("flat")


def test_a_plugin_s_weights_lie_where_it_says(installed, tmp_path):
    weights = tmp_path / "flat.safetensors"
    weights.write_bytes(b"weights")
    module = CORRECTOR.replace(
        "    summary", f"    weights = __import__('pathlib').Path({str(weights)!r})\n    summary"
    )
    installed("flatpackage", {"flat": "flatpackage:Flat"}, module)
    before = implementation("flat")
    weights.write_bytes(b"others")
    assert implementation("flat") != before


def test_a_plugin_without_a_training_has_none(plugin):
    assert plugin not in training_names()
    with pytest.raises(UnknownMethodError, match="no method of that name can be trained"):
        get_training(plugin)


def test_images_are_left_as_they_are_where_the_plugin_is_gone(phantom_file, tmp_path):
    with pytest.raises(UnknownMethodError, match="no correction method of that name"):
        correct_file(phantom_file, tmp_path / "out.nii.gz", method="polynomial")
    assert nifti.load(phantom_file).shape and not (tmp_path / "out.nii.gz").exists()
