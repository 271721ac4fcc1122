"""Bias correction of one image as a Pydra workflow, to be nested in others."""

from pathlib import Path
from typing import Any, cast

from fileformats.application import Json
from fileformats.generic import File
from fileformats.medimage import NiftiGz
from pydra.compose import python, workflow

from biascorr_pydra import __version__
from biascorr_pydra.anatomy.tissue import reason_against
from biascorr_pydra.correction.options import DEFAULTS

from .fields import OPTIONS, workflow_inputs
from .tasks import CorrectBias, ExtractBrain, MeasureBias, SegmentTissue, method_implementation

__all__ = ["AverageFrames", "BiasCorrection", "StripBrain"]


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
    from biascorr_pydra.anatomy.brain import strip_file

    return cast(NiftiGz, strip_file(Path(in_file), Path(mask_file), Path.cwd()))


@python.define(outputs=["out_file"])
def AverageFrames(in_file: File, implementation: str = __version__) -> NiftiGz:  # noqa: N802
    """Average the frames of a 4-D series.

    Parameters
    ----------
    in_file : File
        the series
    implementation : str
        version of the code, part of the cache key

    Returns
    -------
    out_file : NiftiGz
        the mean frame, float32
    """
    from biascorr_pydra.correction.series import average_file

    return cast(NiftiGz, average_file(Path(in_file), Path("mean.nii.gz").absolute()))


@workflow.define(
    inputs=workflow_inputs("in_file", "weight_file", *OPTIONS),
    outputs=[
        *("bias_corrected", "bias_image", "out_mask", "out_segm", "out_tpms", "out_file", "out_metrics"),
        "out_uncertainty",
    ],
)
def BiasCorrection(  # noqa: N802
    in_file: File,
    in_mask: File | None = None,
    method: str = DEFAULTS.method,
    weight_file: File | None = None,
    preset: str | None = DEFAULTS.preset,
    options: dict[str, Any] | None = None,
    skull_strip: str = "auto",
    segmentation: str = "atropos",
    suffix: str = "T1w",
    device: str = DEFAULTS.device,
    seed: int = DEFAULTS.seed,
    average_frames: bool = DEFAULTS.average_frames,
    gate: bool = DEFAULTS.gate,
    fallback: str = DEFAULTS.fallback,
    check_response: bool = DEFAULTS.check_response,
    uncertainty: bool = DEFAULTS.uncertainty,
    strict: bool = DEFAULTS.strict,
    metadata: dict[str, Any] | None = None,
) -> tuple[NiftiGz, NiftiGz, NiftiGz, NiftiGz | None, list[NiftiGz] | None, NiftiGz, Json, NiftiGz | None]:
    """Mask the brain, correct the bias field, segment the tissues and measure what the correction did.

    Outputs have the names of niworkflows' init_n4_only_wf. With ``average_frames``, brain, tissues and metrics are
    those of the mean frame. Other inputs are those of
    :class:`biascorr_pydra.correction.options.CorrectionOptions`.

    Parameters
    ----------
    in_mask : File
        brain mask, for skull_strip given
    skull_strip : str
        auto, deepbet, template or given
    segmentation : str
        atropos, kmeans, deepnormalize or none
    suffix : str
        BIDS suffix, the contrast

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
    out_uncertainty : NiftiGz
        standard deviation of the log field over the image and its mirror images, if asked for
    """
    acquired = in_file
    if average_frames:
        acquired = workflow.add(AverageFrames(in_file=in_file), name="average_acquired").out_file
    brain = workflow.add(
        ExtractBrain(in_file=acquired, method=skull_strip, suffix=suffix, mask_file=in_mask, device=device)
    )
    corrected = workflow.add(
        CorrectBias(
            in_file=in_file,
            method=method,
            mask_file=brain.mask_file,
            weight_file=weight_file,
            preset=preset,
            options=options,
            device=device,
            seed=seed,
            average_frames=average_frames,
            gate=gate,
            fallback=fallback,
            check_response=check_response,
            uncertainty=uncertainty,
            strict=strict,
            metadata=metadata,
            implementation=method_implementation(method, fallback),
        )
    )
    stripped = workflow.add(StripBrain(in_file=corrected.out_file, mask_file=brain.mask_file))
    after = corrected.out_file
    if average_frames:
        after = workflow.add(AverageFrames(in_file=corrected.out_file), name="average_corrected").out_file
    reason = reason_against(suffix, segmentation)
    segmented, tpms = None, None
    if not reason:
        tissue = workflow.add(
            SegmentTissue(
                in_file=after,
                mask_file=brain.mask_file,
                method=segmentation,
                suffix=suffix,
                device=device,
            )
        )
        segmented = tissue.dseg_file
        tpms = workflow.add(ListFiles(gm=tissue.gm_file, wm=tissue.wm_file, csf=tissue.csf_file)).files
    measured = workflow.add(
        MeasureBias(
            in_file=acquired,
            out_file=after,
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
        corrected.uncertainty_file,
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
