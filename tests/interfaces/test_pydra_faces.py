"""Tasks and workflows under ``pydra.tasks.biascorr``, as a user's own workflows use them."""

import hashlib
import inspect
import json
import runpy
import shlex
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fileformats.medimage import NiftiGz
from pydra.compose import shell, workflow
from pydra.engine import Submitter
from pydra.environments import docker, singularity
from pydra.tasks import biascorr
from pydra.utils import get_fields

from biascorr_pydra import correct_file
from biascorr_pydra.anatomy import brain, tissue
from biascorr_pydra.correction.apply import apply_file
from biascorr_pydra.images import nifti
from biascorr_pydra.interfaces.pydra import normalize, tasks, train
from biascorr_pydra.interfaces.pydra import shell as shell_task
from biascorr_pydra.interfaces.pydra import workflow as nested
from biascorr_pydra.quality import measure_file
from biascorr_pydra.workers.engine import Job

EXAMPLE = Path(__file__).parents[2] / "workflows/pydra_workflow.py"
FUNCTIONS = {
    biascorr.CorrectBias: correct_file,
    biascorr.ApplyBias: apply_file,
    biascorr.ExtractBrain: brain.extract_file,
    biascorr.SegmentTissue: tissue.segment_file,
    biascorr.MeasureBias: measure_file,
    biascorr.StripBrain: brain.strip_file,
}
# Parameters that the face gives itself, and what the task has for Pydra's cache.
GIVEN_BY_THE_FACE = {
    biascorr.CorrectBias: {
        *("out_file", "bias_file", "record_file", "rejected_file", "report_file", "uncertainty_file"),
        *("overwrite", "progress"),
    },
    biascorr.ApplyBias: {"out_file", "overwrite"},
}
PYDRAS_OWN = {"function", "implementation", "uncertainty", "report"}


@pytest.fixture
def mask_file(phantom, tmp_path):
    nifti.save(phantom.image(phantom.brain, np.uint8), tmp_path / "mask.nii.gz")
    return tmp_path / "mask.nii.gz"


def test_every_task_is_found_where_pydra_users_look():
    modules = (tasks, normalize, shell_task, train, nested)
    names = {name for module in modules for name in module.__all__ if isinstance(getattr(module, name), type)}
    assert set(biascorr.__all__) == names


@pytest.mark.parametrize("name", biascorr.__all__)
def test_every_input_and_output_has_help(name):
    task = getattr(biascorr, name)
    fields = [*get_fields(task), *get_fields(task.Outputs)]
    pydras = {"function", "constructor", "executable", "append_args", "return", "return_code", "stdout", "stderr"}
    assert [field.name for field in fields if not field.help and field.name not in pydras] == []


@pytest.mark.parametrize("task", FUNCTIONS)
def test_inputs_are_the_functions_parameters(task):
    parameters = inspect.signature(FUNCTIONS[task]).parameters
    taken = set(parameters) - GIVEN_BY_THE_FACE.get(task, set()) - {"folder"}
    fields = {field.name: field for field in get_fields(task) if field.name not in PYDRAS_OWN}
    assert set(fields) == taken
    for name in taken:
        if parameters[name].default is not inspect.Parameter.empty:
            assert fields[name].default == parameters[name].default


def test_the_shell_task_gives_the_same_bytes(tmp_path, phantom_file, mask_file, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    options = {"iterations": [5, 5], "default_mask": "positive", "tolerance": 0.01}
    task = biascorr.CorrectBiasShell(
        in_file=phantom_file,
        method="n4",
        mask_file=mask_file,
        preset="antspy",
        options=options,
        device="cpu",
        seed=3,
    )
    words = shlex.split(task.cmdline)
    assert words[:2] == ["biascorr", "correct"] and words[2] == str(phantom_file)
    assert words[3].endswith("corrected.nii.gz")
    assert {"iterations=[5,5]", 'default_mask="positive"', "tolerance=0.01"} < set(words)
    outputs = task(worker="debug", cache_root=tmp_path / "cache")
    expected = tmp_path / "expected.nii.gz", tmp_path / "expected_bias.nii.gz"
    correct_file(
        phantom_file,
        expected[0],
        method="n4",
        bias_file=expected[1],
        mask_file=mask_file,
        preset="antspy",
        options=options,
    )
    for ours, functions in zip((outputs.out_file, outputs.bias_file), expected, strict=True):
        assert Path(ours).read_bytes() == functions.read_bytes()
    record = json.loads(Path(outputs.record_file).read_text())
    assert record["parameters"]["tolerance"] == 0.01 and record["seed"] == 3


def test_the_page_and_the_field_that_was_not_divided_out(tmp_path, phantom_file, mask_file, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    negligible = {"method": "n4", "options": {"iterations": [1]}, "mask_file": mask_file}
    correct_file(phantom_file, tmp_path / "o.nii.gz", **negligible)
    expected = (tmp_path / "o_rejected-biasfield.nii.gz").read_bytes()
    asked = {"worker": "debug", "cache_root": tmp_path / "cache"}
    for task in (
        biascorr.CorrectBias(in_file=phantom_file, report=True, **negligible),
        biascorr.CorrectBiasShell(in_file=phantom_file, report_file=True, **negligible),
    ):
        outputs = task(**asked)
        assert Path(outputs.rejected_file).read_bytes() == expected
        assert "n4 (negligible, not divided out)" in Path(outputs.report_file).read_text()
    for task in (biascorr.CorrectBias, biascorr.CorrectBiasShell):
        accepted = task(in_file=phantom_file, gate=False, **negligible)(**asked)
        assert accepted.rejected_file is None and accepted.report_file is None
        with pytest.raises(Exception, match=r"negligible|return code"):
            task(in_file=phantom_file, strict=True, **negligible)(**asked)


@pytest.mark.parametrize(("environment", "program"), [(docker, "docker"), (singularity, "singularity")])
def test_the_shell_task_runs_in_a_container(tmp_path, phantom_file, mask_file, monkeypatch, environment, program):
    """The command that Pydra would run: inputs mounted, paths as seen inside."""
    called = []
    monkeypatch.setattr("pydra.environments.base.execute", lambda command, **_: called.append(command) or (0, "", ""))
    task = biascorr.CorrectBiasShell(in_file=phantom_file, mask_file=mask_file, method="n4")
    container = environment.Environment(image="biascorr", tag="0.1.0")
    with Submitter(worker="debug", cache_root=tmp_path / "cache", environment=container) as submitter:
        job = Job(task=task, submitter=submitter, name="correct", environment=container)
        container.execute(job)
    (command,) = called
    assert command[0] == program and "biascorr:0.1.0" in " ".join(command)
    start = command.index("biascorr")
    inside = command[start:]
    assert inside[:2] == ["biascorr", "correct"]
    mounted = " ".join(command[:start])
    assert f"{phantom_file.parent}:/mnt/pydra{phantom_file.parent}:ro" in mounted
    assert inside[2] == f"/mnt/pydra{phantom_file}"
    assert inside[inside.index("--mask-file") + 1] == f"/mnt/pydra{mask_file}"
    assert all(str(tmp_path / "cache") in inside[k] for k in (3, inside.index("--bias-file") + 1))


def test_a_failing_command_tells_the_file_and_the_rule(tmp_path, phantom, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    flat = tmp_path / "flat.nii.gz"
    nifti.save(phantom.image(np.full(phantom.acquired.shape, 7.0)), flat)
    with pytest.raises(RuntimeError, match=r"flat\.nii\.gz: "):
        biascorr.CorrectBiasShell(in_file=flat)(worker="debug", cache_root=tmp_path / "cache")


def test_our_task_and_a_shell_task_in_one_workflow(tmp_path, phantom_file, mask_file):
    """A shell task's file goes into ours, and ours into a shell task."""
    Copy = shell.define("cp <in_file:medimage/nifti-gz> <out|out_file:medimage/nifti-gz>")  # noqa: N806
    Checksum = shell.define("sha256sum <in_file:medimage/nifti-gz>")  # noqa: N806

    @workflow.define(outputs=["corrected", "checksum"])
    def Mixed(t1w: NiftiGz, mask: NiftiGz) -> tuple[NiftiGz, str]:  # noqa: N802
        copied = workflow.add(Copy(in_file=t1w))
        corrected = workflow.add(biascorr.CorrectBias(in_file=copied.out_file, mask_file=mask, method="n4"))
        signed = workflow.add(Checksum(in_file=corrected.out_file))
        return corrected.out_file, signed.stdout

    outputs = Mixed(t1w=phantom_file, mask=mask_file)(worker="debug", cache_root=tmp_path / "cache")
    correct_file(phantom_file, tmp_path / "expected.nii.gz", mask_file=mask_file, method="n4")
    content = (tmp_path / "expected.nii.gz").read_bytes()
    assert Path(outputs.corrected).read_bytes() == content
    assert outputs.checksum.split()[0] == hashlib.sha256(content).hexdigest()


def test_the_workflow_nested_in_anothers_workflow(tmp_path, phantom, phantom_file, mask_file):
    chosen = {"method": "n4", "skull_strip": "given", "segmentation": "kmeans", "device": "cpu"}

    @workflow.define(outputs=["corrected", "bias", "mask", "dseg", "tpms", "brain", "metrics"])
    def Mine(t1w: NiftiGz, mask: NiftiGz):  # noqa: N802
        outputs = workflow.add(biascorr.BiasCorrection(in_file=t1w, in_mask=mask, **chosen))
        return (
            *(outputs.bias_corrected, outputs.bias_image, outputs.out_mask, outputs.out_segm),
            *(outputs.out_tpms, outputs.out_file, outputs.out_metrics),
        )

    outputs = Mine(t1w=phantom_file, mask=mask_file)(worker="debug", cache_root=tmp_path / "cache")
    expected = tmp_path / "expected.nii.gz", tmp_path / "expected_bias.nii.gz"
    correct_file(phantom_file, expected[0], mask_file=mask_file, bias_file=expected[1], method="n4")
    assert Path(outputs.corrected).read_bytes() == expected[0].read_bytes()
    assert Path(outputs.bias).read_bytes() == expected[1].read_bytes()
    brain = nib.load(outputs.mask).get_fdata() > 0
    np.testing.assert_array_equal(brain, phantom.brain)
    np.testing.assert_array_equal(
        nib.load(outputs.brain).get_fdata(), np.where(brain, nib.load(expected[0]).get_fdata(), 0)
    )
    dseg = nib.load(outputs.dseg).get_fdata()
    assert np.mean(dseg[brain] == phantom.dseg[brain]) > 0.9
    most = np.argmax([nib.load(file).get_fdata() for file in outputs.tpms], axis=0) + 1
    assert np.mean(most[brain] == dseg[brain]) > 0.95
    metrics = json.loads(Path(outputs.metrics).read_text())
    assert metrics["own_after"]["cjv"] < metrics["own_before"]["cjv"]


def test_the_workflow_takes_a_series_and_every_option(tmp_path, phantom, mask_file):
    series_file, weight_file = tmp_path / "series.nii.gz", tmp_path / "weight.nii.gz"
    nifti.save(phantom.image(np.stack([phantom.acquired, 2 * phantom.acquired], axis=-1)), series_file)
    nifti.save(phantom.image(np.where(phantom.dseg == 2, 1.0, 0.5)), weight_file)
    chosen = {
        "method": "n4:antspy",
        "options": {"iterations": [4]},
        "weight_file": weight_file,
        "average_frames": True,
        "check_response": True,
        "metadata": {"ImageType": ["NORM"]},
    }
    task = biascorr.BiasCorrection(
        in_file=series_file,
        in_mask=mask_file,
        skull_strip="given",
        segmentation="none",
        device="cpu",
        uncertainty=True,
        **chosen,
    )
    outputs = task(worker="debug", cache_root=tmp_path / "cache")
    expected, uncertainty = tmp_path / "expected.nii.gz", tmp_path / "uncertainty.nii.gz"
    files = {"mask_file": mask_file, "uncertainty_file": uncertainty}
    record = correct_file(series_file, expected, device="cpu", **files, **chosen)
    assert Path(outputs.bias_corrected).read_bytes() == expected.read_bytes()
    assert Path(outputs.out_uncertainty).read_bytes() == uncertainty.read_bytes()
    assert any("NORM" in warning for warning in record.warnings)
    corrected = nib.load(expected).get_fdata(dtype="float32")
    brain = nib.load(outputs.out_file).get_fdata(dtype="float32")
    np.testing.assert_array_equal(brain, np.where(phantom.brain[..., None], corrected, 0))
    assert json.loads(Path(outputs.out_metrics).read_text())["own_after"]


def test_without_a_segmentation_the_metrics_say_why(tmp_path, phantom_file, mask_file):
    task = biascorr.BiasCorrection(in_file=phantom_file, in_mask=mask_file, skull_strip="given", segmentation="none")
    outputs = task(worker="debug", cache_root=tmp_path / "cache")
    assert outputs.out_segm is None and outputs.out_tpms is None
    metrics = json.loads(Path(outputs.out_metrics).read_text())
    assert metrics["undefined"]["own_after.cjv"] == "no tissue segmentation was asked for"


def test_the_example_workflow_runs(tmp_path, phantom_file, mask_file):
    task = runpy.run_path(str(EXAMPLE))["CorrectAndSign"]
    outputs = task(t1w=phantom_file, mask=mask_file)(worker="debug", cache_root=tmp_path / "cache")
    assert outputs.checksum.split()[0] == hashlib.sha256(Path(outputs.corrected).read_bytes()).hexdigest()
