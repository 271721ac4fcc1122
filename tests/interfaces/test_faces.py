"""Python, the command line and the Pydra task are one function: the same bytes."""

import json
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_phantom
from forked import BIASCORR, program

from biascorr_pydra import correct_file, correct_image, weights
from biascorr_pydra.images import nifti
from biascorr_pydra.interfaces.cli.main import cli
from biascorr_pydra.methods import get_corrector, method_names


def biascorr(*arguments):
    return program(BIASCORR, *arguments)


@pytest.mark.parametrize("method", method_names())
def test_every_face_gives_the_same_bytes(tmp_path, method):
    from biascorr_pydra.interfaces.pydra.tasks import CorrectBias

    phantom = make_phantom((24, 28, 22))  # a small head: some networks work on millimetres
    phantom_file, mask_file = tmp_path / "phantom.nii.gz", tmp_path / "mask.nii.gz"
    nifti.save(phantom.image(), phantom_file)
    nifti.save(phantom.image(phantom.brain, np.uint8), mask_file)
    python = tmp_path / "python.nii.gz", tmp_path / "python_bias.nii.gz"
    options = {"rounds": 1} if method == "deepem" else {}
    correct_file(phantom_file, python[0], bias_file=python[1], mask_file=mask_file, method=method, options=options)
    expected = [path.read_bytes() for path in python]

    in_memory = correct_image(nifti.load(phantom_file), mask=mask_file, method=method, options=options)
    nifti.save(in_memory.corrected, tmp_path / "memory.nii.gz")
    assert (tmp_path / "memory.nii.gz").read_bytes() == expected[0]

    shell = tmp_path / "shell.nii.gz", tmp_path / "shell_bias.nii.gz"
    done = biascorr(
        *("correct", phantom_file, shell[0], "--bias-file", shell[1], "--mask-file", mask_file, "--method", method),
        *(f"--set={name}={value}" for name, value in options.items()),
    )
    assert done.returncode == 0, done.stderr
    assert [path.read_bytes() for path in shell] == expected

    task = CorrectBias(in_file=phantom_file, mask_file=mask_file, method=method, options=options)
    outputs = task(worker="debug", cache_root=tmp_path / "cache")
    assert [Path(outputs.out_file).read_bytes(), Path(outputs.bias_file).read_bytes()] == expected
    assert json.loads(Path(outputs.record_file).read_text())["method"] == method


def test_changed_bytes_under_the_same_name_recompute(tmp_path, phantom, phantom_file):
    from biascorr_pydra.interfaces.pydra.tasks import CorrectBias

    first = CorrectBias(in_file=phantom_file, method="n4")(worker="debug", cache_root=tmp_path / "cache")
    nifti.save(phantom.image(phantom.true), phantom_file)
    second = CorrectBias(in_file=phantom_file, method="n4")(worker="debug", cache_root=tmp_path / "cache")
    expected = correct_image(phantom.image(phantom.true), method="n4").bias.get_fdata()
    np.testing.assert_array_equal(nifti.load(str(second.bias_file)).get_fdata(), expected)
    assert Path(first.bias_file).read_bytes() != Path(second.bias_file).read_bytes()


def test_apply_on_the_command_line(tmp_path, phantom, phantom_file):
    nifti.save(phantom.image(phantom.bias), tmp_path / "bias.nii.gz")
    assert biascorr("apply", tmp_path / "bias.nii.gz", phantom_file, tmp_path / "out.nii.gz").returncode == 0
    expected = phantom.acquired / phantom.bias.astype(np.float32)
    np.testing.assert_allclose(nifti.load(tmp_path / "out.nii.gz").get_fdata(), expected, rtol=1e-5)
    again = biascorr("apply", tmp_path / "bias.nii.gz", phantom_file, tmp_path / "out.nii.gz")
    assert again.returncode == 1 and "the output exists" in again.stderr and "Traceback" not in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere.nii.gz", "out.nii.gz"), 1, "no such file"),
        (("IN", "IN"), 1, "same file"),
        (("IN", "OUT", "--method", "n5"), 2, "no correction method"),
        (("IN", "OUT", "--preset", "best"), 2, "no preset"),
        (("IN", "OUT", "--set", "bins"), 2, "NAME=VALUE"),
        (("IN", "OUT", "--method", "n4", "--set", "bins=-3"), 2, "Got: -3"),
        (("IN", "OUT", "--device", "tpu"), 2, "tpu"),
        (("IN",), 2, "Missing argument"),
    ],
)
def test_errors_on_the_command_line(tmp_path, phantom_file, arguments, code, words):
    names = {"IN": phantom_file, "OUT": tmp_path / "out.nii.gz"}
    done = biascorr("correct", *(names.get(argument, argument) for argument in arguments))
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out.nii.gz").exists()


def test_options_reach_the_method(tmp_path, phantom_file):
    done = biascorr(
        *("correct", phantom_file, tmp_path / "o.nii.gz", "--record-file", tmp_path / "r.json"),
        *("--method", "n4", "--set", "bins=100", "--set", "iterations=[5,5]"),
    )
    assert done.returncode == 0, done.stderr
    parameters = json.loads((tmp_path / "r.json").read_text())["parameters"]
    assert parameters["bins"] == 100 and parameters["iterations"] == [5, 5]


def test_a_method_is_named_with_its_preset(tmp_path, phantom_file):
    few = ("--set", "iterations=[3]", "--device", "cpu")
    for name, arguments in {"one": ("n4:antspy",), "two": ("n4", "--preset", "antspy")}.items():
        files = tmp_path / f"{name}.nii.gz", "--record-file", tmp_path / f"{name}.json"
        done = biascorr("correct", phantom_file, *files, "--method", *arguments, *few)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / f"{name}.json").read_text())
        assert (record["method"], record["preset"]) == ("n4", "antspy")
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    twice = biascorr("correct", phantom_file, tmp_path / "o.nii.gz", "--method", "n4:antspy", "--preset", "ants")
    assert twice.returncode == 2 and "a preset is given once" in twice.stderr


def test_metadata_come_from_a_json_file(tmp_path, phantom_file):
    sidecar = tmp_path / "elsewhere.json"
    sidecar.write_text('{"ImageType": ["ORIGINAL", "PRIMARY", "NORM"]}')
    arguments = ("correct", phantom_file, tmp_path / "o.nii.gz", "--method", "n4", "--set", "iterations=[1]")
    done = biascorr(*arguments, "--metadata-file", sidecar)
    assert done.returncode == 0 and "ImageType has NORM" in done.stderr, done.stderr
    for content, words in (("[]", "not a JSON object"), ("{", "cannot be read as JSON")):
        sidecar.write_text(content)
        done = biascorr(*arguments, "--metadata-file", sidecar, "--overwrite")
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_methods_are_listed_with_what_they_need():
    listed = json.loads(biascorr("methods", "--json").stdout)
    assert [entry["name"] for entry in listed] == method_names()
    for entry in listed:
        cls = get_corrector(entry["name"])
        assert entry["version"] == cls.version and list(entry["presets"]) == list(cls.presets)
        assert all(parameter["help"] for parameter in entry["parameters"].values())
        assert (entry["weights"] is None) == (cls.weights is None)
    shown = biascorr("methods").stdout
    assert "n4 " in shown
    assert shown.count("when to use it: ") == sum(entry["weights"] is not None for entry in listed)
    whole = biascorr("methods", "ubc").stdout
    card = weights.card_of("ubc")
    assert card["sha256"] in whole
    assert all(text in whole for text in [card["training_data"]["licence"], *card["limits"], *card["deviates"]])


def test_a_listing_tells_of_damaged_weights_and_goes_on(tmp_path, monkeypatch):
    (tmp_path / "getnet" / "weights").mkdir(parents=True)
    (tmp_path / "getnet" / "weights" / "getnet.safetensors").write_bytes(b"half")
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    shown = CliRunner().invoke(cli, ["methods"])
    assert shown.exit_code == 1
    assert "no such weights" in shown.output and "no card" in shown.output
    assert "ITK's N4" in shown.output


def test_console_scripts_are_declared():
    scripts = {entry.name: entry.value for entry in entry_points(group="console_scripts")}
    assert scripts["biascorr"] == "biascorr_pydra.interfaces.cli.main:main"
    assert scripts["pydra"] == "biascorr_pydra.interfaces.pydra.run:main"


def test_levels_are_printed_on_request(tmp_path, phantom_file):
    done = biascorr(
        *("correct", phantom_file, tmp_path / "o.nii.gz", "--verbose", "--no-gate"),
        *("--method", "n4", "--set", "iterations=[3,2]"),
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["level 1", "level 2"]
