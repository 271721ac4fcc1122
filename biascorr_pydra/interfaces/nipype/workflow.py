"""Bias correction of one subject's images as a Nipype workflow in niworkflows' manner."""

from __future__ import annotations

from pathlib import Path

from biascorr_pydra import __version__
from biascorr_pydra.anatomy.brain import METHODS as BRAIN_METHODS
from biascorr_pydra.anatomy.brain import resolve_method
from biascorr_pydra.anatomy.tissue import METHODS as TISSUE_METHODS
from biascorr_pydra.anatomy.tissue import reason_against
from biascorr_pydra.correction.options import CorrectionOptions
from biascorr_pydra.errors import InvalidParameterError, UnknownMethodError
from biascorr_pydra.interfaces.extras import missing
from biascorr_pydra.methods import DEFAULT_METHOD
from biascorr_pydra.methods.spec import NO_FALLBACK

try:
    from nipype.interfaces import utility as niu
    from nipype.pipeline import engine as pe
    from nireports.interfaces.reporting.base import SimpleBeforeAfterRPT
    from nireports.interfaces.reporting.masks import ROIsPlot
    from niworkflows.engine.workflows import LiterateWorkflow
    from niworkflows.interfaces.bids import DerivativesDataSink
    from niworkflows.interfaces.nibabel import ApplyMask
    from niworkflows.utils.connections import pop_file
except ImportError as error:
    raise missing("the workflows for fMRIPrep's family", error, "fmriprep") from error

from .base import declare
from .interfaces import BiasMetrics, BrainMask, CorrectBias, TissueSegmentation

__all__ = ["init_bias_correction_wf"]

OUTPUTS = ["bias_corrected", "bias_image", "out_mask", "out_segm", "out_tpms", "out_file", "out_metrics", "out_report"]
MASKED_BY = {
    "deepbet": "deepbet (Fisch et al., Comput Biol Med, 2024, doi:10.1016/j.compbiomed.2024.108845)",
    "template": "affine registration of the MNI152 2009 template",
    "given": "a mask that was given",
}
SEGMENTED_BY = {
    "atropos": "Atropos (Avants et al., Neuroinformatics 9(4), 2011, doi:10.1007/s12021-011-9109-y)",
    "kmeans": "k-means clustering",
    "deepnormalize": "DeepNormalize's segmenter (Delisle et al., Med Image Anal, 2022)",
}


class ReportletSink(DerivativesDataSink):
    """A sink that adds no folder of its own to the output folder."""

    out_path_base = ""


def init_bias_correction_wf(
    name: str = "bias_correction_wf",
    *,
    method: str = DEFAULT_METHOD,
    preset: str | None = None,
    skull_strip: str = "auto",
    segmentation: str = "atropos",
    bids_suffix: str = "T1w",
    use_gpu: bool = False,
    gate: bool = True,
    fallback: str = NO_FALLBACK,
    output_dir: str | Path | None = None,
) -> LiterateWorkflow:
    """Build a workflow that corrects the bias fields of one subject's images of one contrast.

    It stands where niworkflows has ``init_n4_only_wf``, with its input and output names.

    Parameters
    ----------
    name : str
    method, preset : str
        See `biascorr methods`.
    skull_strip : str
        Brain mask, made on the first image: auto, deepbet, template, or given, which takes ``in_mask``.
    segmentation : str
        atropos, kmeans or deepnormalize, on the first corrected image, or none.
    bids_suffix : str
        The images' contrast.
    use_gpu : bool
        Estimate the field on a GPU.
    gate, fallback
        Whether each field is judged, and whose stands in for a rejected one or a refusal; see
        :func:`biascorr_pydra.correction.correct.correct_image`.
    output_dir : path, optional
        Where a subject's ``figures`` folder with the reportlets goes, under BIDS names that nireports finds; the images
        must have BIDS names then.

    Inputs
    ------
    in_files : list of files, 3-D, on one grid
    in_mask : file, for ``skull_strip="given"``

    Outputs
    -------
    bias_corrected : the corrected images
    bias_image : the bias field of each, mean 1 in the brain
    out_file : the corrected images without what is outside the brain
    out_mask : brain mask of the first image
    out_segm : segmentation of the first image: 1 GM, 2 WM, 3 CSF
    out_tpms : probabilities of GM, WM and CSF, in this order
    out_metrics : metrics before and after of each image, JSON
    out_report : SVG reportlets: each image before and after, then the segmentation

    Raises
    ------
    UnknownMethodError, InvalidParameterError
        Before the workflow is built.
    """
    chosen = CorrectionOptions(method=method, preset=preset, gate=gate, fallback=fallback)
    chosen.fallback_corrector()
    corrector = chosen.corrector()
    _check(skull_strip, segmentation, bids_suffix)
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = _description(corrector, chosen.preset, skull_strip, segmentation, bids_suffix)

    inputnode = pe.Node(niu.IdentityInterface(fields=["in_files", "in_mask"]), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=OUTPUTS), name="outputnode")
    brain = declare(pe.Node(BrainMask(method=skull_strip, suffix=bids_suffix), name="brain"), "brain")
    correct = pe.MapNode(
        CorrectBias(
            method=chosen.method,
            use_gpu=use_gpu,
            use_cuda=use_gpu,
            gate=gate,
            fallback=fallback,
            **({"preset": chosen.preset} if chosen.preset else {}),
        ),
        iterfield=["in_file"],
        name="correct",
    )
    declare(correct, chosen.method, use_gpu=use_gpu)
    strip = pe.MapNode(ApplyMask(), iterfield=["in_file"], name="strip")
    measure = declare(
        pe.MapNode(BiasMetrics(), iterfield=["in_file", "out_file", "bias_file"], name="measure"), "metrics"
    )
    report = pe.MapNode(
        SimpleBeforeAfterRPT(before_label="acquired", after_label="corrected"),
        iterfield=["before", "after"],
        name="report",
        mem_gb=1.0,
    )
    reports = pe.Node(niu.Merge(2), name="reports", run_without_submitting=True)

    workflow.connect([
        (inputnode, brain, [(("in_files", pop_file), "in_file")]),
        (inputnode, correct, [("in_files", "in_file")]),
        (brain, correct, [("mask_file", "mask_file")]),
        (correct, strip, [("out_file", "in_file")]),
        (brain, strip, [("mask_file", "in_mask")]),
        (inputnode, measure, [("in_files", "in_file")]),
        (correct, measure, [("out_file", "out_file"), ("bias_file", "bias_file")]),
        (brain, measure, [("mask_file", "mask_file")]),
        (inputnode, report, [("in_files", "before")]),
        (correct, report, [("out_file", "after")]),
        (brain, report, [("mask_file", "wm_seg")]),
        (report, reports, [("out_report", "in1")]),
        (correct, outputnode, [("out_file", "bias_corrected"), ("bias_file", "bias_image")]),
        (brain, outputnode, [("mask_file", "out_mask")]),
        (strip, outputnode, [("out_file", "out_file")]),
        (measure, outputnode, [("metrics_file", "out_metrics")]),
        (reports, outputnode, [("out", "out_report")]),
    ])  # fmt: skip
    if skull_strip == "given":
        workflow.connect([(inputnode, brain, [("in_mask", "mask_file")])])
    if segmentation == "none":
        measure.inputs.no_dseg_reason = "no segmentation was asked for"
    else:
        _add_tissues(workflow, segmentation, bids_suffix)
    if output_dir is not None:
        _add_sinks(workflow, Path(output_dir), with_tissues=segmentation != "none")
    return workflow


def _check(skull_strip: str, segmentation: str, bids_suffix: str) -> None:
    for option, value, known in (
        ("skull_strip", skull_strip, [choice for choice in BRAIN_METHODS if choice != "none"]),
        ("segmentation", segmentation, [choice for choice in TISSUE_METHODS if choice != "given"]),
    ):
        if value not in known:
            raise UnknownMethodError(f"{option} has no such choice", value=repr(value), next_step=f"One of: {known}.")
    reason = reason_against(bids_suffix, segmentation)
    if segmentation != "none" and reason:
        raise InvalidParameterError(
            f"{bids_suffix} images cannot be segmented", value=reason, next_step='Give segmentation="none".'
        )


def _add_tissues(workflow, segmentation: str, bids_suffix: str) -> None:
    """Segment the first corrected image, and let every image be measured on it."""
    brain, correct, measure, reports, outputnode = (
        workflow.get_node(node) for node in ("brain", "correct", "measure", "reports", "outputnode")
    )
    tissue = declare(pe.Node(TissueSegmentation(method=segmentation, suffix=bids_suffix), name="tissue"), "tissue")
    probabilities = pe.Node(niu.Merge(3), name="probabilities", run_without_submitting=True)
    report = pe.Node(ROIsPlot(colors=["b", "magenta"], levels=[1.5, 2.5]), name="report_tissue", mem_gb=1.0)
    workflow.connect([
        (correct, tissue, [(("out_file", pop_file), "in_file")]),
        (brain, tissue, [("mask_file", "mask_file")]),
        (tissue, measure, [("dseg_file", "dseg_file")]),
        (tissue, probabilities, [("gm_file", "in1"), ("wm_file", "in2"), ("csf_file", "in3")]),
        (correct, report, [(("out_file", pop_file), "in_file")]),
        (brain, report, [("mask_file", "in_mask")]),
        (tissue, report, [("dseg_file", "in_rois")]),
        (report, reports, [("out_report", "in2")]),
        (tissue, outputnode, [("dseg_file", "out_segm")]),
        (probabilities, outputnode, [("out", "out_tpms")]),
    ])  # fmt: skip


def _add_sinks(workflow, output_dir: Path, *, with_tissues: bool) -> None:
    """Put the reportlets where nireports looks for them: sub-*/figures."""
    inputnode = workflow.get_node("inputnode")
    sink = pe.MapNode(
        ReportletSink(base_directory=str(output_dir), datatype="figures", desc="biascorr"),
        iterfield=["source_file", "in_file"],
        name="ds_report",
        run_without_submitting=True,
    )
    workflow.connect([
        (inputnode, sink, [("in_files", "source_file")]),
        (workflow.get_node("report"), sink, [("out_report", "in_file")]),
    ])  # fmt: skip
    if with_tissues:
        sink = pe.Node(
            ReportletSink(base_directory=str(output_dir), datatype="figures", desc="biascorr", suffix="dseg"),
            name="ds_report_tissue",
            run_without_submitting=True,
        )
        workflow.connect([
            (inputnode, sink, [(("in_files", pop_file), "source_file")]),
            (workflow.get_node("report_tissue"), sink, [("out_report", "in_file")]),
        ])  # fmt: skip


def _description(corrector, preset, skull_strip, segmentation, bids_suffix) -> str:
    preset = preset or next(iter(corrector.presets))
    text = (
        f"The {bids_suffix} images were corrected for intensity non-uniformity with *biascorr_pydra* {__version__}, "
        f"method `{corrector.name}` {corrector.version}, preset `{preset}` "
        f"({corrector.summary}; {corrector.citation()}), "
        f"estimated in a brain mask from {MASKED_BY[resolve_method(skull_strip, bids_suffix)]}. "
    )
    if segmentation != "none":
        text += f"Gray matter, white matter and CSF were segmented with {SEGMENTED_BY[segmentation]}. "
    return text + "\n"
