"""Workflows that niworkflows and sMRIPrep build, with ANTs' N4 swapped for this package."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces import utility as niu
from nipype.interfaces.ants import N4BiasFieldCorrection
from nipype.pipeline import engine as pe
from niworkflows.anat.ants import init_brain_extraction_wf, init_n4_only_wf
from niworkflows.anat.skullstrip import afni_wf
from niworkflows.func.util import init_enhance_and_skullstrip_bold_wf
from niworkflows.utils.spaces import Reference, SpatialReferences
from niworkflows.workflows.epi.refmap import init_epi_reference_wf
from smriprep.workflows.anatomical import init_anat_fit_wf, init_anat_template_wf

from biascorr_pydra import correct_file
from biascorr_pydra.errors import InvalidParameterError, UnknownMethodError
from biascorr_pydra.images import nifti
from biascorr_pydra.interfaces.nipype.base import resources_of
from biascorr_pydra.interfaces.nipype.n4 import BiascorrN4, BiascorrShiftedN4
from biascorr_pydra.interfaces.nipype.swap import SwappedNode, nodes_of, use_biascorr

pytestmark = pytest.mark.nipype

FINAL = ("bspline_fitting_distance", "convergence_threshold", "n_iterations", "rescale_intensities", "shrink_factor")


def brain_extraction(refine):
    return init_brain_extraction_wf(omp_nthreads=2, atropos_refine=refine)


def anat_fit(tmp_path, bids_t1w, skull_strip_mode="force"):
    return init_anat_fit_wf(
        bids_root=str(tmp_path / "bids"),
        output_dir=str(tmp_path / "out"),
        freesurfer=False,
        hires=False,
        longitudinal=False,
        msm_sulc=False,
        t1w=[str(bids_t1w)] * 2,
        t2w=[],
        skull_strip_mode=skull_strip_mode,
        skull_strip_template=Reference("OASIS30ANTs"),
        spaces=SpatialReferences(spaces=["MNI152NLin2009cAsym"], checkpoint=True),
        precomputed={},
        omp_nthreads=2,
    )


def edges(workflow, prefix=""):
    """Every edge, nested ones too, by names."""
    connected = set()
    for source, target, data in workflow._graph.edges(data=True):
        for field, wanted in data["connect"]:
            field = field if isinstance(field, str) else (field[0], str(field[1:]))
            connected.add((prefix + source.name, field, prefix + target.name, wanted))
    for node in workflow._graph.nodes():
        if isinstance(node, pe.Workflow):
            connected |= edges(node, f"{prefix}{node.name}.")
    return connected


def ants_nodes(workflow):
    return {name for name, node in nodes_of(workflow) if isinstance(node.interface, N4BiasFieldCorrection)}


BUILDERS = {
    "n4_only": (lambda *_: init_n4_only_wf(omp_nthreads=2), {"inu_n4", "atropos_wf.inu_n4_final"}),
    "n4_only_plain": (lambda *_: init_n4_only_wf(omp_nthreads=2, atropos_refine=False), {"inu_n4"}),
    "brain_extraction": (lambda *_: brain_extraction(True), {"inu_n4", "atropos_wf.inu_n4_final"}),
    "brain_extraction_plain": (lambda *_: brain_extraction(False), {"inu_n4", "inu_n4_final"}),
    "afni_skullstrip": (lambda *_: afni_wf(), {"inu_n4"}),
    "bold_skullstrip": (lambda *_: init_enhance_and_skullstrip_bold_wf(), {"n4_correct"}),
    "epi_reference": (lambda *_: init_epi_reference_wf(omp_nthreads=2), {"n4_avgs"}),
    "anat_template": (
        lambda *_: init_anat_template_wf(longitudinal=False, omp_nthreads=2, num_files=2, image_type="T1w"),
        {"n4_correct"},
    ),
    "anat_fit": (
        anat_fit,
        {
            "anat_template_wf.n4_correct",
            "brain_extraction_wf.inu_n4",
            "brain_extraction_wf.atropos_wf.inu_n4_final",
        },
    ),
    "anat_fit_stripped": (
        lambda tmp_path, bids_t1w: anat_fit(tmp_path, bids_t1w, "skip"),
        {"anat_template_wf.n4_correct", "n4_only_wf.inu_n4", "n4_only_wf.atropos_wf.inu_n4_final"},
    ),
}


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_n4_of_a_real_workflow_is_swapped_and_nothing_else(tmp_path, bids_t1w, builder):
    build, expected = BUILDERS[builder]
    workflow = build(tmp_path, bids_t1w)
    assert ants_nodes(workflow) == expected
    nodes = dict(nodes_of(workflow))
    before = {
        name: (type(node), getattr(node, "iterfield", None), node.iterables, type(node.interface))
        for name, node in nodes.items()
    }
    connections = edges(workflow)
    values = {name: nodes[name].inputs.get_traitsfree() for name in expected}

    swapped = use_biascorr(workflow)

    assert {node.name for node in swapped} == expected and not ants_nodes(workflow)
    assert all(node.method == "n4" and not node.set_aside for node in swapped)
    assert edges(workflow) == connections
    for name, node in nodes_of(workflow):
        assert node is nodes[name]
        kind, iterfield, iterables, interface = before[name]
        assert (type(node), getattr(node, "iterfield", None), node.iterables) == (kind, iterfield, iterables)
        assert type(node.interface) is interface or name in expected
    for name in expected:
        shifted = before[name][3].__name__.startswith("Fix")
        assert type(nodes[name].interface) is (BiascorrShiftedN4 if shifted else BiascorrN4)
        kept = nodes[name].inputs.get_traitsfree()
        for trait, value in values[name].items():
            if trait not in ("num_threads", "environ"):  # of ANTs; n4 runs in one thread
                assert kept[trait] == value
        assert nodes[name].n_procs == 1 and nodes[name].mem_gb == resources_of("n4").mem_gb
    workflow._create_flat_graph()


def test_a_swapped_workflow_runs_with_multiproc(tmp_path, phantom, bids_t1w):
    workflow = init_n4_only_wf(omp_nthreads=2, atropos_refine=False)
    use_biascorr(workflow)
    workflow.base_dir = str(tmp_path / "work")
    workflow.inputs.inputnode.in_files = [str(bids_t1w)] * 2
    keep = pe.Node(niu.IdentityInterface(fields=["corrected", "bias"]), name="keep")
    outer = pe.Workflow("outer", base_dir=str(tmp_path / "work"))
    outer.connect([
        (workflow, keep, [("outputnode.bias_corrected", "corrected"), ("outputnode.bias_image", "bias")])
    ])  # fmt: skip
    graph = outer.run("MultiProc", plugin_args={"n_procs": 2})
    outputs = next(node for node in graph.nodes() if node.name == "inu_n4").result.outputs
    correct_file(
        bids_t1w,
        tmp_path / "expected.nii.gz",
        method="n4",
        preset="niworkflows-final",
        bias_file=tmp_path / "expected_bias.nii.gz",
    )
    for corrected, bias in zip(outputs.output_image, outputs.bias_image, strict=True):
        assert Path(corrected).read_bytes() == (tmp_path / "expected.nii.gz").read_bytes()
        assert Path(bias).read_bytes() == (tmp_path / "expected_bias.nii.gz").read_bytes()
    field = nib.load(outputs.bias_image[0]).get_fdata()[phantom.brain]
    assert np.std(field / phantom.bias[phantom.brain]) < 0.1


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: brain_extraction(True), "atropos_wf.inu_n4_final"),
        (lambda: brain_extraction(False), "inu_n4_final"),
        (lambda: init_n4_only_wf(omp_nthreads=1), "atropos_wf.inu_n4_final"),
    ],
)
def test_the_final_node_runs_on_the_weights_that_are_wired_to_it(tmp_path, phantom, bids_t1w, build, name):
    """What comes before it needs ANTs' programs; so the node is run alone, on a white-matter map."""
    workflow = build()
    use_biascorr(workflow)
    nifti.save(phantom.image((phantom.dseg == 2).astype(float)), tmp_path / "wm.nii.gz")
    node = workflow.get_node(name)
    node.base_dir = str(tmp_path)
    node.inputs.input_image = [str(bids_t1w)]
    node.inputs.weight_image = str(tmp_path / "wm.nii.gz")
    outputs = node.run().outputs
    correct_file(
        bids_t1w,
        tmp_path / "expected.nii.gz",
        method="n4",
        preset="niworkflows-final",
        weight_file=tmp_path / "wm.nii.gz",
    )
    assert Path(outputs.output_image[0]).read_bytes() == (tmp_path / "expected.nii.gz").read_bytes()


def test_another_method_says_what_it_sets_aside(caplog):
    workflow = brain_extraction(True)
    swapped = use_biascorr(workflow, "ubc")
    assert swapped == [
        SwappedNode("inu_n4", "ubc", tuple(t for t in FINAL if t != "rescale_intensities")),
        SwappedNode("atropos_wf.inu_n4_final", "ubc", tuple(sorted({*FINAL, "weight_image"}))),
    ]
    node = workflow.get_node("atropos_wf.inu_n4_final")
    assert set(node.inputs.set_aside) == {*FINAL, "weight_image"}
    assert "atropos_wf.inu_n4_final: ubc has no use for" in caplog.text


def test_a_gpu_is_asked_for_where_it_is_wanted():
    workflow = init_n4_only_wf(omp_nthreads=2, atropos_refine=False)
    use_biascorr(workflow, "ubc", use_gpu=True)
    node = workflow.get_node("inu_n4")
    assert node.is_gpu_node() and node.plugin_args["sbatch_args"].endswith("--gres=gpu:1")


def test_a_mapnode_that_iterates_over_more(tmp_path, phantom, phantom_file, mask_file):
    node = pe.MapNode(
        N4BiasFieldCorrection(shrink_factor=2), iterfield=["input_image", "mask_image", "n_iterations"], name="n4"
    )
    node.inputs.input_image = [str(phantom_file)] * 2
    node.inputs.mask_image = [str(mask_file)] * 2
    node.inputs.n_iterations = [[3], [5, 5]]
    workflow = pe.Workflow("many", base_dir=str(tmp_path))
    workflow.add_nodes([node])
    use_biascorr(workflow)
    assert node.iterfield == ["input_image", "mask_image", "n_iterations"]
    outputs = node.run().outputs.output_image
    for iterations, file in zip([(3,), (5, 5)], outputs, strict=True):
        expected = tmp_path / f"{len(iterations)}.nii.gz"
        options = {"iterations": iterations, "shrink_factor": 2, "rescale": False}
        correct_file(phantom_file, expected, method="n4", mask_file=mask_file, preset="ants", options=options)
        assert Path(file).read_bytes() == expected.read_bytes()


def test_iterables_are_kept(tmp_path, phantom_file):
    node = pe.Node(N4BiasFieldCorrection(input_image=str(phantom_file), n_iterations=[2]), name="n4")
    node.iterables = ("shrink_factor", [2, 4])
    workflow = pe.Workflow("iterated", base_dir=str(tmp_path))
    workflow.add_nodes([node])
    use_biascorr(workflow)
    graph = workflow.run()
    assert sorted(node.inputs.shrink_factor for node in graph.nodes()) == [2, 4]


@pytest.mark.parametrize(
    "iterables",
    [
        ("shrink_factor", [2, 4]),
        [("shrink_factor", [2, 4]), ("bspline_fitting_distance", [100.0])],
        [("shrink_factor", "bspline_fitting_distance"), [(2, 100.0), (4, 200.0)]],
    ],
)
def test_iterables_that_a_method_has_no_use_for_are_told(iterables):
    node = pe.Node(N4BiasFieldCorrection(), name="n4")
    node.iterables = iterables
    workflow = pe.Workflow("iterated")
    workflow.add_nodes([node])
    (swapped,) = use_biascorr(workflow, "ubc")
    assert "shrink_factor" in swapped.set_aside
    assert ("bspline_fitting_distance" in swapped.set_aside) == ("bspline" in str(iterables))


def test_a_node_that_cannot_be_honoured_leaves_the_workflow_as_it_was():
    workflow = pe.Workflow("two")
    workflow.add_nodes(
        [
            pe.Node(N4BiasFieldCorrection(), name="good"),
            pe.Node(N4BiasFieldCorrection(dimension=2), name="flat"),
        ]
    )
    with pytest.raises(InvalidParameterError, match=r"flat: images have three dimensions"):
        use_biascorr(workflow)
    assert ants_nodes(workflow) == {"good", "flat"}
    with pytest.raises(UnknownMethodError):
        use_biascorr(workflow, "n5")

    class Other(N4BiasFieldCorrection):
        pass

    workflow = pe.Workflow("other")
    workflow.add_nodes([pe.Node(Other(), name="other")])
    with pytest.raises(InvalidParameterError, match=r"other: .*kind of N4"):
        use_biascorr(workflow)


def test_a_workflow_without_n4_is_told_of(caplog):
    workflow = pe.Workflow("none")
    workflow.add_nodes([pe.Node(niu.IdentityInterface(fields=["a"]), name="a")])
    assert use_biascorr(workflow) == [] and "nothing was swapped" in caplog.text


def test_the_boilerplate_tells_who_corrects(tmp_path, bids_t1w):
    workflow = anat_fit(tmp_path, bids_t1w)
    use_biascorr(workflow)
    text = workflow.visit_desc()
    assert "biascorr_pydra" in text and "method `n4`" in text and "10.1109/TMI.2010.2046908" in text
