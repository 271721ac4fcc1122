"""init_bias_correction_wf: named as niworkflows names, described, measured and reported."""

import json
import runpy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.anat.ants import init_n4_only_wf

from biascorr_pydra import correct_file
from biascorr_pydra.errors import InvalidParameterError, UnknownMethodError
from biascorr_pydra.interfaces.nipype.workflow import init_bias_correction_wf
from biascorr_pydra.methods import get_corrector, method_names

pytestmark = pytest.mark.nipype
EXAMPLE = Path(__file__).parents[2] / "workflows/nipype_workflow.py"


def test_it_has_the_inputs_and_outputs_of_init_n4_only_wf():
    theirs, ours = init_n4_only_wf(), init_bias_correction_wf()
    for node, name in ((theirs.get_node("inputnode"), "inputnode"), (theirs.get_node("outputnode"), "outputnode")):
        assert set(node.inputs.copyable_trait_names()) <= set(ours.get_node(name).inputs.copyable_trait_names())


@pytest.mark.parametrize("method", method_names())
def test_the_description_names_and_cites_the_method(method):
    text = init_bias_correction_wf(method=method, skull_strip="template").visit_desc()
    assert f"`{method}`" in text and get_corrector(method).citation() in text
    assert "MNI152" in text and "Atropos" in text
    assert "segmented" not in init_bias_correction_wf(method=method, segmentation="none").visit_desc()


def test_resources_are_declared():
    workflow = init_bias_correction_wf(method="ubc", use_gpu=True)
    correct = workflow.get_node("correct")
    assert correct.is_gpu_node() and "--gres=gpu:1" in correct.plugin_args["sbatch_args"]
    assert not workflow.get_node("brain").is_gpu_node()
    assert {node: workflow.get_node(node).mem_gb for node in ("brain", "tissue", "correct", "measure")} == {
        **{"brain": 2.0, "tissue": 1.5, "correct": 1.3, "measure": 1.0},
    }


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"method": "n5"}, UnknownMethodError),
        ({"preset": "best"}, InvalidParameterError),
        ({"skull_strip": "none"}, UnknownMethodError),
        ({"segmentation": "given"}, UnknownMethodError),
        ({"bids_suffix": "PDw"}, InvalidParameterError),
    ],
)
def test_what_it_cannot_build_is_refused(options, error):
    with pytest.raises(error):
        init_bias_correction_wf(**options)


def test_it_runs_nested_in_a_workflow_and_writes_reportlets(tmp_path, phantom, bids_t1w, mask_file):
    ours = init_bias_correction_wf(skull_strip="given", segmentation="kmeans", output_dir=tmp_path / "out")
    outer = pe.Workflow("outer", base_dir=str(tmp_path / "work"))
    source = pe.Node(niu.IdentityInterface(fields=["t1w", "mask"]), name="source")
    source.inputs.t1w, source.inputs.mask = [str(bids_t1w)], str(mask_file)
    names = ours.get_node("outputnode").inputs.copyable_trait_names()
    keep = pe.Node(niu.Function(input_names=list(names), output_names=["out"], function=as_dict), name="keep")
    outer.connect([
        (source, ours, [("t1w", "inputnode.in_files"), ("mask", "inputnode.in_mask")]),
        (ours, keep, [(f"outputnode.{name}", name) for name in names]),
    ])  # fmt: skip
    graph = outer.run()
    collected = next(node for node in graph.nodes() if node.name == "keep").result.outputs.out

    expected = tmp_path / "expected.nii.gz", tmp_path / "expected_bias.nii.gz"
    correct_file(bids_t1w, expected[0], mask_file=mask_file, bias_file=expected[1], device="cpu")
    assert Path(collected["bias_corrected"][0]).read_bytes() == expected[0].read_bytes()
    assert Path(collected["bias_image"][0]).read_bytes() == expected[1].read_bytes()
    brain = nib.load(collected["out_mask"]).get_fdata() > 0
    np.testing.assert_array_equal(brain, phantom.brain)
    stripped = nib.load(collected["out_file"][0]).get_fdata()
    np.testing.assert_allclose(stripped, np.where(brain, nib.load(expected[0]).get_fdata(), 0), rtol=1e-6)
    dseg = nib.load(collected["out_segm"]).get_fdata()
    assert np.mean(dseg[brain] == phantom.dseg[brain]) > 0.9
    most = np.argmax([nib.load(file).get_fdata() for file in collected["out_tpms"]], axis=0) + 1
    assert np.mean(most[brain] == dseg[brain]) > 0.95
    metrics = json.loads(Path(collected["out_metrics"][0]).read_text())
    assert metrics["own_after"]["cjv"] < metrics["own_before"]["cjv"]
    assert [Path(file).suffix for file in collected["out_report"]] == [".svg", ".svg"]
    assert sorted(path.name for path in (tmp_path / "out/sub-01/figures").iterdir()) == [
        "sub-01_desc-biascorr_T1w.svg",
        "sub-01_desc-biascorr_dseg.svg",
    ]


def as_dict(**files):
    return files


def test_nireports_assembles_the_reportlets(tmp_path):
    from nireports.assembler.report import Report

    figures = tmp_path / "out/sub-01/figures"
    figures.mkdir(parents=True)
    for name in ("sub-01_desc-biascorr_T1w.svg", "sub-01_desc-biascorr_dseg.svg"):
        (figures / name).write_text("<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>")
    bootstrap = tmp_path / "bootstrap.yml"
    bootstrap.write_text(
        "package: biascorr_pydra\n"
        "sections:\n"
        "- name: Bias correction\n"
        "  reportlets:\n"
        "  - bids: {datatype: figures, desc: biascorr, suffix: T1w, extension: [.svg]}\n"
        "    caption: Before and after.\n"
        "  - bids: {datatype: figures, desc: biascorr, suffix: dseg, extension: [.svg]}\n"
        "    caption: Tissues.\n"
    )
    report = Report(tmp_path / "out", "run", reportlets_dir=tmp_path / "out", bootstrap_file=bootstrap, subject="01")
    report.generate_report()
    html = next((tmp_path / "out").glob("*.html")).read_text()
    assert html.count("sub-01_desc-biascorr_") >= 2


def test_the_example_script_runs(tmp_path, bids_t1w, monkeypatch):
    workflow = runpy.run_path(str(EXAMPLE))["build"]([str(bids_t1w)], tmp_path / "out", tmp_path / "work")
    assert {"bias_correction_wf.correct", "smooth"} <= set(workflow.list_node_names())
    monkeypatch.setattr(
        "sys.argv", ["nipype_workflow.py", str(bids_t1w), str(tmp_path / "out"), "--skull-strip", "template"]
    )
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    smoothed = nib.load(next((tmp_path / "out").rglob("*smoothed*.nii.gz")))
    assert smoothed.shape == nib.load(bids_t1w).shape
