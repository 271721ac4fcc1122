"""The Nipype interfaces are the functions: same names, same defaults, same bytes."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins import multiproc

from biascorr_pydra import correct_file
from biascorr_pydra.anatomy import brain, tissue
from biascorr_pydra.correction.apply import apply_file
from biascorr_pydra.errors import InvalidParameterError, RejectedFieldError, UnknownMethodError, UnreadableImageError
from biascorr_pydra.images import nifti
from biascorr_pydra.interfaces.nipype import interfaces
from biascorr_pydra.interfaces.nipype.base import declare, resources_of
from biascorr_pydra.interfaces.nipype.interfaces import (
    ApplyBias,
    BiasMetrics,
    BrainMask,
    CorrectBias,
    TissueSegmentation,
)
from biascorr_pydra.interfaces.pydra import tasks
from biascorr_pydra.methods import method_names
from biascorr_pydra.quality import measure_file
from biascorr_pydra.resources import Resources

pytestmark = pytest.mark.nipype

FUNCTIONS = {
    CorrectBias: correct_file,
    ApplyBias: apply_file,
    BrainMask: brain.extract_file,
    TissueSegmentation: tissue.segment_file,
    BiasMetrics: measure_file,
}
# Parameters that a face gives itself, and inputs that are Nipype's own.
GIVEN_BY_THE_FACE = {
    CorrectBias: {
        *("out_file", "bias_file", "record_file", "rejected_file", "report_file", "uncertainty_file"),
        *("overwrite", "progress", "device"),
    },
    ApplyBias: {"out_file", "overwrite"},
    BrainMask: {"folder", "device"},
    TissueSegmentation: {"folder", "device"},
    BiasMetrics: {"folder"},
}
NIPYPES_OWN = {"num_threads", "use_gpu", "use_cuda", "uncertainty", "report"}


@pytest.mark.parametrize("interface", FUNCTIONS)
def test_inputs_are_the_functions_parameters(interface):
    inputs = interface().inputs
    parameters = inspect.signature(FUNCTIONS[interface]).parameters
    taken = set(parameters) - GIVEN_BY_THE_FACE[interface]
    assert set(inputs.copyable_trait_names()) - NIPYPES_OWN == taken
    for name in taken:
        value, default = getattr(inputs, name), parameters[name].default
        if default in (inspect.Parameter.empty, None):
            assert not isdefined(value)
            assert bool(inputs.trait(name).mandatory) == (default is inspect.Parameter.empty)
        else:
            assert value == default and inputs.trait(name).usedefault
    assert all(inputs.trait(name).desc for name in inputs.copyable_trait_names())
    outputs = interface.output_spec()
    assert all(outputs.trait(name).desc for name in outputs.copyable_trait_names())


def test_the_pydra_tasks_have_the_same_outputs():
    from pydra.utils import get_fields

    pairs = {
        CorrectBias: tasks.CorrectBias,
        ApplyBias: tasks.ApplyBias,
        BrainMask: tasks.ExtractBrain,
        TissueSegmentation: tasks.SegmentTissue,
        BiasMetrics: tasks.MeasureBias,
    }
    for interface, task in pairs.items():
        names = {field.name for field in get_fields(task.Outputs)} - {"return"}
        assert set(interface.output_spec().copyable_trait_names()) == names


@pytest.mark.parametrize("method", method_names())
def test_four_faces_give_the_same_bytes(tmp_path, phantom_file, mask_file, method):
    python = tmp_path / "python.nii.gz", tmp_path / "python_bias.nii.gz"
    correct_file(phantom_file, python[0], bias_file=python[1], mask_file=mask_file, method=method, device="cpu")
    expected = [path.read_bytes() for path in python]

    shell = tmp_path / "shell.nii.gz", tmp_path / "shell_bias.nii.gz"
    command = ["correct", phantom_file, shell[0], "--bias-file", shell[1], "--mask-file", mask_file]
    code = "from biascorr_pydra.interfaces.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, command), "--method", method, "--device", "cpu"], check=True)
    assert [path.read_bytes() for path in shell] == expected

    pydra = tasks.CorrectBias(in_file=phantom_file, mask_file=mask_file, method=method, device="cpu")(
        worker="debug", cache_root=tmp_path / "cache"
    )
    assert [Path(file).read_bytes() for file in (pydra.out_file, pydra.bias_file)] == expected

    (tmp_path / "nipype").mkdir()
    nipype = CorrectBias(in_file=phantom_file, mask_file=mask_file, method=method, num_threads=2)
    outputs = nipype.run(cwd=str(tmp_path / "nipype")).outputs
    assert [Path(file).read_bytes() for file in (outputs.out_file, outputs.bias_file)] == expected
    assert json.loads(Path(outputs.record_file).read_text())["method"] == method


def test_every_step_gives_what_its_function_gives(tmp_path, phantom, phantom_file, mask_file):
    expected, written = tmp_path / "expected", tmp_path / "found"
    expected.mkdir()
    correct_file(phantom_file, expected / "corrected.nii.gz", bias_file=expected / "bias.nii.gz")
    bias, corrected = expected / "bias.nii.gz", expected / "corrected.nii.gz"
    apply_file(bias, phantom_file, expected / "applied.nii.gz")
    dseg = tissue.segment_file(corrected, expected, mask_file=mask_file, method="kmeans", suffix="T1w").dseg_file
    metrics = measure_file(phantom_file, corrected, bias, expected, mask_file=mask_file, dseg_file=dseg)
    mask = brain.extract_file(phantom_file, expected, method="given", mask_file=mask_file).mask_file

    def run(interface, **inputs):
        (written / interface.__name__).mkdir(parents=True)
        return interface(**inputs).run(cwd=str(written / interface.__name__)).outputs

    same = {
        run(ApplyBias, bias_file=bias, in_file=phantom_file).out_file: expected / "applied.nii.gz",
        run(BrainMask, in_file=phantom_file, method="given", mask_file=mask_file).mask_file: mask,
        run(TissueSegmentation, in_file=corrected, mask_file=mask_file, method="kmeans", suffix="T1w").dseg_file: dseg,
        run(
            BiasMetrics, in_file=phantom_file, out_file=corrected, bias_file=bias, mask_file=mask_file, dseg_file=dseg
        ).metrics_file: metrics,
    }
    for ours, functions in same.items():
        assert Path(ours).read_bytes() == Path(functions).read_bytes()
    agreement = np.mean(nib.load(dseg).get_fdata()[phantom.brain] == phantom.dseg[phantom.brain])
    assert agreement > 0.9


@pytest.mark.parametrize("flag", ["use_gpu", "use_cuda"])
def test_a_gpu_node_asks_for_cuda_and_is_counted(monkeypatch, phantom_file, flag):
    asked = {}
    monkeypatch.setattr(
        "biascorr_pydra.single.correct_file",
        lambda *_, **options: asked.update(options) or SimpleNamespace(rejected_field=None),
    )
    interface = CorrectBias(in_file=phantom_file, **{flag: True})
    interface._run_interface(type("Runtime", (), {"cwd": "."}))
    assert asked["device"] == "cuda"

    node = declare(pe.Node(interface, name="correct"), "n4", use_gpu=True)
    assert node.is_gpu_node() and node.n_procs == 1
    monkeypatch.setattr(multiproc, "gpu_count", lambda: 2)
    plugin = multiproc.MultiProcPlugin(plugin_args={"n_procs": 2})
    plugin.procs = [node, pe.Node(CorrectBias(in_file=phantom_file), name="on_cpu")]
    memory_gb, processors, gpu_slots = plugin._check_resources([(0, 0), (1, 1)])
    assert (processors, gpu_slots) == (0, 1)
    assert memory_gb == pytest.approx(plugin.memory_gb - resources_of("n4").mem_gb - 0.2)


def test_without_the_flag_no_gpu_is_touched(monkeypatch, phantom_file):
    asked = {}
    monkeypatch.setattr(
        "biascorr_pydra.single.correct_file",
        lambda *_, **options: asked.update(options) or SimpleNamespace(rejected_field=None),
    )
    CorrectBias(in_file=phantom_file)._run_interface(type("Runtime", (), {"cwd": "."}))
    assert asked["device"] == "cpu"


def test_multiproc_refuses_a_gpu_node_where_there_is_no_gpu(monkeypatch, tmp_path, phantom_file):
    monkeypatch.setattr(multiproc, "gpu_count", lambda: 0)
    workflow = pe.Workflow("gpu", base_dir=str(tmp_path))
    workflow.add_nodes([pe.Node(CorrectBias(in_file=phantom_file, use_gpu=True), name="correct")])
    with pytest.raises(RuntimeError, match="Insufficient GPU resources"):
        workflow.run("MultiProc", plugin_args={"n_procs": 2, "raise_insufficient": True})


def test_slurm_is_asked_for_what_a_node_takes():
    node = declare(pe.Node(CorrectBias(), name="correct"), "ubc", use_gpu=True)
    assert node.plugin_args == {"sbatch_args": "--cpus-per-task=1 --mem=1331M --gres=gpu:1"}
    node = pe.MapNode(CorrectBias(), iterfield=["in_file"], name="correct")
    node.plugin_args = {"sbatch_args": "--partition=long", "overwrite": True}
    declare(node, "n4")
    assert node.plugin_args == {"sbatch_args": "--partition=long --cpus-per-task=1 --mem=1331M", "overwrite": True}


def test_a_node_s_memory_is_its_method_s_for_a_large_head():
    # 0.7 GB and 40 bytes for each of 192 x 256 x 256 voxels: 1.203, rounded up to tenths
    assert resources_of("n4") == resources_of("n4:antspy") == Resources(cpus=1, mem_gb=1.3)
    assert resources_of("ants-n4") == Resources(cpus=2, mem_gb=1.3)
    assert resources_of("deepnormalize").mem_gb == 2.3
    assert resources_of("brain") == Resources(mem_gb=2.0)
    with pytest.raises(UnknownMethodError):
        resources_of("nothing")


def test_another_version_of_the_code_computes_again(monkeypatch, phantom_file):
    before = CorrectBias(in_file=phantom_file).inputs.get_hashval()
    assert CorrectBias(in_file=phantom_file).inputs.get_hashval() == before
    assert CorrectBias(in_file=phantom_file, method="ubc").inputs.get_hashval()[1] != before[1]
    monkeypatch.setattr(interfaces, "method_version", lambda *chosen: "another")
    assert CorrectBias(in_file=phantom_file).inputs.get_hashval()[1] != before[1]


def test_the_page_and_the_field_that_was_not_divided_out(tmp_path, phantom_file, mask_file):
    negligible = {"method": "n4", "options": {"iterations": [1]}, "mask_file": mask_file}
    correct_file(phantom_file, tmp_path / "o.nii.gz", **negligible)
    (tmp_path / "node").mkdir()
    node = CorrectBias(in_file=phantom_file, report=True, **negligible)
    outputs = node.run(cwd=str(tmp_path / "node")).outputs
    assert Path(outputs.rejected_file).read_bytes() == (tmp_path / "o_rejected-biasfield.nii.gz").read_bytes()
    assert "n4 (negligible, not divided out)" in Path(outputs.report_file).read_text()
    again = CorrectBias(in_file=phantom_file, gate=False, **negligible).run(cwd=str(tmp_path / "node")).outputs
    assert not isdefined(again.rejected_file)  # the one in the folder is of the run before
    with pytest.raises(RejectedFieldError, match="negligible"):
        CorrectBias(in_file=phantom_file, strict=True, **negligible).run(cwd=str(tmp_path / "node"))


def test_errors_are_the_packages_own(tmp_path, phantom_file):
    with pytest.raises(UnreadableImageError, match="no such file"):
        CorrectBias(in_file=tmp_path / "nowhere.nii.gz").run()
    with pytest.raises(InvalidParameterError, match="makes a brain mask"):
        BrainMask(in_file=phantom_file, method="none").run()


@pytest.mark.parametrize("plugin", ["Linear", "MultiProc"])
def test_the_crash_file_names_the_file_and_the_rule(tmp_path, phantom, plugin):
    flat = tmp_path / "flat.nii.gz"
    nifti.save(phantom.image(np.full(phantom.acquired.shape, 7.0)), flat)
    workflow = pe.Workflow("crash", base_dir=str(tmp_path / "work"))
    workflow.config["execution"] = {"crashdump_dir": str(tmp_path / "crash"), "crashfile_format": "txt"}
    node = pe.MapNode(CorrectBias(), iterfield=["in_file"], name="correct")
    node.inputs.in_file = [str(flat)]
    workflow.add_nodes([node])
    with pytest.raises(Exception, match=r"(?i)crash|failed"):
        workflow.run(plugin, plugin_args={"n_procs": 1} if plugin == "MultiProc" else {})
    texts = [file.read_text() for file in (tmp_path / "crash").glob("crash*.txt")]
    with pytest.raises(ValueError) as error:
        correct_file(flat, tmp_path / "o.nii.gz")
    assert any(str(error.value) in text for text in texts)
    assert str(flat) in str(error.value)
