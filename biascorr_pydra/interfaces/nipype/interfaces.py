"""Nipype interfaces over the package's functions: types converted, nothing more.

Inputs have the names, defaults and meanings of the functions' parameters. Instead of ``device`` there are ``use_gpu``
and ``use_cuda``, by which Nipype's plugins know a node that takes a GPU; without them an interface runs on the CPU.
Errors are those of :mod:`biascorr_pydra.errors` and so reach Nipype's crash file with the file and the rule in them.
"""

from __future__ import annotations

from pathlib import Path

from biascorr_pydra.bids.signs import metadata_beside, signs_of_correction
from biascorr_pydra.correction.options import help_of

from .base import (
    DeviceInputSpec,
    FileInterface,
    ThreadedInputSpec,
    VersionedInputSpec,
    file_trait,
    given,
    method_version,
    option_trait,
)

from nipype.interfaces.base import File, TraitedSpec, isdefined, traits  # isort: skip (after the base, which explains its absence)

__all__ = ["ApplyBias", "BiasMetrics", "BrainMask", "CorrectBias", "TissueSegmentation"]


class CorrectBiasInputSpec(ThreadedInputSpec):
    """The options of a correction, but for ``device``."""

    in_file = file_trait("in_file", mandatory=True)
    mask_file = file_trait("mask_file")
    weight_file = file_trait("weight_file")
    method = option_trait("method")
    preset = option_trait("preset")
    options = option_trait("options")
    seed = option_trait("seed")
    average_frames = option_trait("average_frames")
    gate = option_trait("gate")
    fallback = option_trait("fallback")
    check_response = option_trait("check_response")
    uncertainty = option_trait("uncertainty")
    strict = option_trait("strict")
    metadata = option_trait("metadata")
    report = traits.Bool(False, usedefault=True, desc="also write report_file, a page that shows the correction")
    suffix = traits.Str(desc=help_of("suffix"))

    def implementation(self) -> str:
        # The sidecar beside the image is read too, so that the hash follows it; a MapNode has a list of images.
        images = self.in_file if isinstance(self.in_file, list) else [self.in_file]
        signs = [signs_of_correction(metadata_beside(image)[0]) for image in images if isdefined(image)]
        return f"{method_version(self.method, self.fallback)} {signs}"


class CorrectBiasOutputSpec(TraitedSpec):
    """The files that a correction writes."""

    out_file = file_trait("out_file", exists=True)
    bias_file = file_trait("bias_file", exists=True)
    record_file = file_trait("record_file", exists=True)
    rejected_file = file_trait("rejected_file")
    report_file = file_trait("report_file")
    uncertainty_file = file_trait("uncertainty_file")


class CorrectBias(FileInterface):
    """Estimate and remove the bias field of one image; see :func:`biascorr_pydra.correct_file`.

    Examples
    --------
    >>> from biascorr_pydra.interfaces.nipype.interfaces import CorrectBias
    >>> correct = CorrectBias(in_file="sub-01_T1w.nii.gz", method="n4", preset="antspy")
    """

    input_spec = CorrectBiasInputSpec
    output_spec = CorrectBiasOutputSpec

    def compute(self, folder: Path) -> dict[str, Path | None]:
        from biascorr_pydra.single import correct_file

        inputs, out_file = self.inputs, folder / "corrected.nii.gz"
        others = {
            "bias_file": folder / "bias.nii.gz",
            "record_file": folder / "record.json",
            "rejected_file": folder / "rejected.nii.gz",
            "report_file": folder / "report.html" if inputs.report else None,
            "uncertainty_file": folder / "uncertainty.nii.gz" if inputs.uncertainty else None,
        }
        correction = correct_file(
            inputs.in_file,
            out_file,
            bias_file=others["bias_file"],
            record_file=others["record_file"],
            rejected_file=others["rejected_file"],
            report_file=others["report_file"],
            suffix=given(inputs.suffix),
            uncertainty_file=others["uncertainty_file"],
            method=inputs.method,
            mask_file=given(inputs.mask_file),
            weight_file=given(inputs.weight_file),
            device=self._device(),
            seed=inputs.seed,
            preset=given(inputs.preset),
            options=given(inputs.options),
            average_frames=inputs.average_frames,
            gate=inputs.gate,
            fallback=inputs.fallback,
            check_response=inputs.check_response,
            strict=inputs.strict,
            metadata=given(inputs.metadata),
            overwrite=True,  # the node's own folder
        )
        if correction.rejected_field is None:
            others["rejected_file"] = None  # what lies there is of an earlier run of the node
        written = {name: file for name, file in others.items() if file is not None and file.exists()}
        return {"out_file": out_file, **written}


class ApplyBiasInputSpec(VersionedInputSpec):
    bias_file = File(mandatory=True, desc="the field")
    in_file = File(mandatory=True, desc="the image or 4-D series on the field's grid")


class ApplyBiasOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the corrected image or series, float32")


class ApplyBias(FileInterface):
    """Divide an image or a 4-D series by a bias field on its grid; see :func:`biascorr_pydra.apply_file`."""

    input_spec = ApplyBiasInputSpec
    output_spec = ApplyBiasOutputSpec

    def compute(self, folder: Path) -> dict[str, Path | None]:
        from biascorr_pydra.correction.apply import apply_file

        out_file = folder / "corrected.nii.gz"
        apply_file(self.inputs.bias_file, self.inputs.in_file, out_file, overwrite=True)
        return {"out_file": out_file}


class BrainMaskInputSpec(ThreadedInputSpec):
    in_file = File(mandatory=True, desc="the image")
    method = traits.Str("auto", usedefault=True, desc="auto, deepbet, template or given")
    suffix = traits.Str(desc="BIDS suffix, the contrast")
    mask_file = File(desc="the mask for method given")


class BrainMaskOutputSpec(TraitedSpec):
    mask_file = File(exists=True, desc="brain mask, uint8, on the image's grid")
    record_file = File(exists=True, desc="method and volume, JSON")


class BrainMask(FileInterface):
    """Make a brain mask on the image's grid; see :func:`biascorr_pydra.anatomy.brain.extract_file`."""

    input_spec = BrainMaskInputSpec
    output_spec = BrainMaskOutputSpec

    def compute(self, folder: Path) -> dict[str, Path | None]:
        from biascorr_pydra.anatomy.brain import extract_file

        inputs = self.inputs
        return extract_file(
            inputs.in_file,
            folder,
            method=inputs.method,
            suffix=given(inputs.suffix),
            mask_file=given(inputs.mask_file),
            device=self._device(),
        )._asdict()


class TissueSegmentationInputSpec(DeviceInputSpec):
    in_file = File(mandatory=True, desc="the image, best corrected for its bias field")
    mask_file = File(desc="brain mask")
    method = traits.Str("atropos", usedefault=True, desc="atropos, kmeans, deepnormalize or given")
    suffix = traits.Str(desc="BIDS suffix, which tells the order of the tissues' intensities")
    given_dseg = File(desc="for method given, a segmentation made elsewhere")
    given_gm = File(desc="for method given, probability of grey matter")
    given_wm = File(desc="for method given, probability of white matter")
    given_csf = File(desc="for method given, probability of CSF")


class TissueSegmentationOutputSpec(TraitedSpec):
    dseg_file = File(exists=True, desc="1 GM, 2 WM, 3 CSF")
    gm_file = File(exists=True, desc="probability of grey matter")
    wm_file = File(exists=True, desc="probability of white matter")
    csf_file = File(exists=True, desc="probability of CSF")
    record_file = File(exists=True, desc="method and volumes, JSON")


class TissueSegmentation(FileInterface):
    """Segment grey matter, white matter and CSF; see :func:`biascorr_pydra.anatomy.tissue.segment_file`."""

    input_spec = TissueSegmentationInputSpec
    output_spec = TissueSegmentationOutputSpec

    def compute(self, folder: Path) -> dict[str, Path | None]:
        from biascorr_pydra.anatomy.tissue import segment_file

        inputs = self.inputs
        names = ("mask_file", "suffix", "given_dseg", "given_gm", "given_wm", "given_csf")
        optional = {name: given(getattr(inputs, name)) for name in names}
        return segment_file(inputs.in_file, folder, method=inputs.method, device=self._device(), **optional)._asdict()


class BiasMetricsInputSpec(VersionedInputSpec):
    in_file = File(mandatory=True, desc="the acquired image")
    out_file = File(mandatory=True, desc="the corrected image")
    bias_file = File(mandatory=True, desc="the field that was divided out")
    mask_file = File(desc="brain mask; the detected head by default")
    dseg_file = File(desc="tissue segmentation, 1 GM, 2 WM, 3 CSF")
    no_dseg_reason = traits.Str(
        "no tissue segmentation was given", usedefault=True, desc="why there is no segmentation, if there is none"
    )


class BiasMetricsOutputSpec(TraitedSpec):
    metrics_file = File(exists=True, desc="before, after, field, and the reasons for what is undefined, JSON")


class BiasMetrics(FileInterface):
    """Measure an image before and after correction, and its field: :func:`.quality.measure_file`."""

    input_spec = BiasMetricsInputSpec
    output_spec = BiasMetricsOutputSpec

    def compute(self, folder: Path) -> dict[str, Path | None]:
        from biascorr_pydra.quality import measure_file

        inputs = self.inputs
        metrics_file = measure_file(
            inputs.in_file,
            inputs.out_file,
            inputs.bias_file,
            folder,
            mask_file=given(inputs.mask_file),
            dseg_file=given(inputs.dseg_file),
            no_dseg_reason=inputs.no_dseg_reason,
        )
        return {"metrics_file": metrics_file}
