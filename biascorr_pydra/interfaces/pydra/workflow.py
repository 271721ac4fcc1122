"""Bias correction of one image as a Pydra workflow, to be nested in others."""

from pathlib import Path
from typing import Any

from fileformats.application import Json
from fileformats.generic import File
from fileformats.medimage import NiftiGz
from pydra.compose import python, workflow

from biascorr_pydra import __version__
from biascorr_pydra.anatomy.tissue import reason_against
from biascorr_pydra.methods import DEFAULT_METHOD
from biascorr_pydra.methods.spec import NO_FALLBACK

from .tasks import CorrectBias, ExtractBrain, MeasureBias, SegmentTissue, method_implementation

__all__ = ["BiasCorrection", "StripBrain"]


@python.define(outputs=["out_file"])
def StripBrain(in_file: File, mask_file: File, implementation: str = __version__) -> NiftiGz:  # noqa: N802
    """Set everything outside a brain mask to 0.

    Parameters
    ----------
    in_file : File
        the image
    mask_file : File
        brain mask
    implementation : str
        version of the code, part of the cache key

    Returns
    -------
    out_file : NiftiGz
        the brain, float32
    """
    from biascorr_pydra.anatomy.steps import strip_file

    return strip_file(Path(str(in_file)), Path(str(mask_file)), Path.cwd())


@workflow.define(
    outputs=["bias_corrected", "bias_image", "out_mask", "out_segm", "out_tpms", "out_file", "out_metrics"]
)
def BiasCorrection(  # noqa: N802
    in_file: File,
    in_mask: File | None = None,
    method: str = DEFAULT_METHOD,
    preset: str | None = None,
    options: dict[str, Any] | None = None,
    skull_strip: str = "auto",
    segmentation: str = "atropos",
    suffix: str = "T1w",
    device: str = "auto",
    seed: int = 0,
    gate: bool = True,
    fallback: str = NO_FALLBACK,
) -> tuple[NiftiGz, NiftiGz, NiftiGz, NiftiGz | None, list[NiftiGz] | None, NiftiGz, Json]:
    """Mask the brain, correct the bias field, segment the tissues and measure what the correction did.

    Outputs have the names of niworkflows' init_n4_only_wf.

    Parameters
    ----------
    in_file : File
        the image, 3-D
    in_mask : File
        brain mask, for skull_strip given
    method : str
        the correction method, see `biascorr methods`
    preset : str
        a named set of the method's parameters
    options : dict
        single parameters of the method
    skull_strip : str
        auto, deepbet, template or given
    segmentation : str
        atropos, kmeans, deepnormalize or none
    suffix : str
        BIDS suffix, the contrast
    device : str
        auto, cpu or cuda
    seed : int
        for methods that draw random numbers
    gate : bool
        judge the field; one that is negligible or rejected is not divided out
    fallback : str
        none, or a method whose field stands in for a rejected one or a refusal

    Returns
    -------
    bias_corrected : NiftiGz
        the corrected image
    bias_image : NiftiGz
        the bias field, mean 1 in the brain
    out_mask : NiftiGz
        brain mask
    out_segm : NiftiGz
        1 GM, 2 WM, 3 CSF
    out_tpms : list
        probabilities of GM, WM and CSF, in this order
    out_file : NiftiGz
        the corrected image without what is outside the brain
    out_metrics : Json
        metrics before and after
    """
    brain = workflow.add(
        ExtractBrain(in_file=in_file, method=skull_strip, suffix=suffix, mask_file=in_mask, device=device)
    )
    corrected = workflow.add(
        CorrectBias(
            in_file=in_file,
            method=method,
            mask_file=brain.mask_file,
            preset=preset,
            options=options,
            device=device,
            seed=seed,
            gate=gate,
            fallback=fallback,
            implementation=method_implementation(method, fallback),
        )
    )
    stripped = workflow.add(StripBrain(in_file=corrected.out_file, mask_file=brain.mask_file))
    reason = reason_against(suffix, segmentation)
    segmented, tpms = None, None
    if not reason:
        tissue = workflow.add(
            SegmentTissue(in_file=corrected.out_file, mask_file=brain.mask_file, method=segmentation, suffix=suffix)
        )
        segmented = tissue.dseg_file
        tpms = workflow.add(ListFiles(gm=tissue.gm_file, wm=tissue.wm_file, csf=tissue.csf_file)).files
    measured = workflow.add(
        MeasureBias(
            in_file=in_file,
            out_file=corrected.out_file,
            bias_file=corrected.bias_file,
            mask_file=brain.mask_file,
            dseg_file=segmented,
            **({"no_dseg_reason": reason} if reason else {}),
        )
    )
    return (
        corrected.out_file,
        corrected.bias_file,
        brain.mask_file,
        segmented,
        tpms,
        stripped.out_file,
        measured.metrics_file,
    )


@python.define(outputs=["files"])
def ListFiles(gm: NiftiGz, wm: NiftiGz, csf: NiftiGz) -> list[NiftiGz]:  # noqa: N802
    """Three files as one list.

    Parameters
    ----------
    gm : NiftiGz
        probability of grey matter
    wm : NiftiGz
        probability of white matter
    csf : NiftiGz
        probability of CSF

    Returns
    -------
    files : list
        the three
    """
    return [gm, wm, csf]
