"""Pydra tasks over the package's functions.

Images are typed as files, so that Pydra's cache follows their contents. A task's ``implementation`` input names the
code and weights behind it: another version is another cache entry.

A task's function returns paths, and Pydra makes of them the files that its signature declares; hence the casts.
"""

from pathlib import Path
from typing import Any, cast, overload

from fileformats.application import Json
from fileformats.generic import File
from fileformats.medimage import NiftiGz
from pydra.compose import python

from biascorr_pydra import __version__
from biascorr_pydra.anatomy.tissue import NETWORKS
from biascorr_pydra.correction.options import DEFAULTS, help_of
from biascorr_pydra.methods.spec import NO_FALLBACK
from biascorr_pydra.resources import requires, together

from . import needs
from .fields import OPTIONS, python_inputs

__all__ = [
    "ApplyBias",
    "CorrectBias",
    "ExtractBrain",
    "MeasureBias",
    "SegmentTissue",
    "method_implementation",
    "path_of",
    "segmenter_implementation",
]


@overload
def path_of(file: None) -> None: ...
@overload
def path_of(file: File) -> Path: ...
def path_of(file: File | None) -> Path | None:
    """A file of Pydra's as a path."""
    return None if file is None else Path(str(file))


def _estimate_together(tasks: list) -> Any:
    from biascorr_pydra.correction.batch import ESTIMATED_BY, estimate_together

    return estimate_together(
        [
            {
                "in_file": path_of(task.in_file),
                "mask_file": path_of(task.mask_file),
                "weight_file": path_of(task.weight_file),
                **{name: getattr(task, name) for name in ESTIMATED_BY},
            }
            for task in tasks
        ]
    )


@together(_estimate_together)
@requires(needs.for_correction)
@python.define(
    inputs=python_inputs("in_file", "mask_file", "weight_file", "suffix", *OPTIONS),
    outputs={
        name: python.out(help=help_of(name))
        for name in ("out_file", "bias_file", "record_file", "rejected_file", "report_file", "uncertainty_file")
    },
)
def CorrectBias(
    in_file: File,
    method: str = DEFAULTS.method,
    mask_file: File | None = None,
    weight_file: File | None = None,
    preset: str | None = DEFAULTS.preset,
    options: dict[str, Any] | None = None,
    device: str = DEFAULTS.device,
    seed: int = DEFAULTS.seed,
    average_frames: bool = DEFAULTS.average_frames,
    gate: bool = DEFAULTS.gate,
    fallback: str = DEFAULTS.fallback,
    check_response: bool = DEFAULTS.check_response,
    uncertainty: bool = DEFAULTS.uncertainty,
    strict: bool = DEFAULTS.strict,
    metadata: dict[str, Any] | None = None,
    report: bool = False,
    suffix: str | None = None,
    implementation: str = __version__,
) -> tuple[NiftiGz, NiftiGz, Json, NiftiGz | None, File | None, NiftiGz | None]:
    """Estimate and remove the bias field of one image.

    The inputs are those of :class:`biascorr_pydra.correction.options.CorrectionOptions`, and the files. A sidecar that
    is read from beside the image, where no ``metadata`` are given, is not followed by the cache.

    Parameters
    ----------
    report : bool
        also write report_file, a page that shows the correction
    implementation : str
        version of code and weights, part of the cache key
    """
    from biascorr_pydra.single import correct_file

    names = ("corrected.nii.gz", "bias.nii.gz", "record.json", "rejected.nii.gz", "report.html", "uncertainty.nii.gz")
    out_file, bias_file, record_file, rejected_file, page, uncertainty_map = (Path(name).absolute() for name in names)
    report_file = page if report else None
    uncertainty_file = uncertainty_map if uncertainty else None
    correction = correct_file(
        Path(in_file),
        out_file,
        method=method,
        mask_file=path_of(mask_file),
        weight_file=path_of(weight_file),
        bias_file=bias_file,
        record_file=record_file,
        rejected_file=rejected_file,
        report_file=report_file,
        suffix=suffix,
        device=device,
        seed=seed,
        preset=preset,
        options=options,
        average_frames=average_frames,
        gate=gate,
        fallback=fallback,
        check_response=check_response,
        uncertainty_file=uncertainty_file,
        strict=strict,
        metadata=metadata,
        overwrite=True,  # the task's own folder: what an interrupted run left there is replaced
    )
    rejected = None if correction.rejected_field is None else rejected_file  # not an interrupted run's
    written = (out_file, bias_file, record_file, rejected, report_file, uncertainty_file)
    return cast(tuple[NiftiGz, NiftiGz, Json, NiftiGz | None, File | None, NiftiGz | None], written)


@python.define(outputs=["out_file"])
def ApplyBias(bias_file: File, in_file: File, implementation: str = __version__) -> NiftiGz:  # noqa: N802
    """Divide an image or a 4-D series by a bias field on its grid.

    Parameters
    ----------
    bias_file : File
        the field
    in_file : File
        the image or series
    implementation : str
        version of the code, part of the cache key

    Returns
    -------
    out_file : NiftiGz
        the corrected image or series, float32
    """
    from biascorr_pydra.correction.apply import apply_file

    out_file = Path("corrected.nii.gz").absolute()
    apply_file(path_of(bias_file), path_of(in_file), out_file, overwrite=True)
    return cast(NiftiGz, out_file)


@requires(needs.for_brain)
@python.define(outputs=["mask_file", "record_file"])
def ExtractBrain(  # noqa: N802
    in_file: File,
    method: str = "auto",
    suffix: str | None = None,
    mask_file: File | None = None,
    device: str = "auto",
    implementation: str = __version__,
) -> tuple[NiftiGz, Json]:
    """Make a brain mask on the image's grid.

    Parameters
    ----------
    in_file : File
        the image
    method : str
        auto, deepbet, template or given
    suffix : str
        BIDS suffix, the contrast
    mask_file : File
        the mask for method given
    device : str
        auto, cpu or cuda
    implementation : str
        version of the code, part of the cache key

    Returns
    -------
    mask_file : NiftiGz
        brain mask, uint8
    record_file : Json
        method and volume
    """
    from biascorr_pydra.anatomy.brain import extract_file

    written = extract_file(
        path_of(in_file), Path.cwd(), method=method, suffix=suffix, mask_file=path_of(mask_file), device=device
    )
    return cast(tuple[NiftiGz, Json], tuple(written))


@requires(needs.for_tissue)
@python.define(outputs=["dseg_file", "gm_file", "wm_file", "csf_file", "record_file"])
def SegmentTissue(  # noqa: N802
    in_file: File,
    mask_file: File | None = None,
    method: str = "atropos",
    suffix: str | None = None,
    given_dseg: File | None = None,
    given_gm: File | None = None,
    given_wm: File | None = None,
    given_csf: File | None = None,
    device: str = "auto",
    implementation: str = __version__,
) -> tuple[NiftiGz, NiftiGz | None, NiftiGz | None, NiftiGz | None, Json]:
    """Segment grey matter, white matter and CSF.

    Parameters
    ----------
    in_file : File
        the image, best corrected for its bias field
    mask_file : File
        brain mask
    method : str
        atropos, kmeans, deepnormalize or given
    suffix : str
        BIDS suffix, which tells the order of the tissues' intensities
    given_dseg : File
        for method given, a segmentation made elsewhere
    given_gm : File
        for method given, probability of grey matter
    given_wm : File
        for method given, probability of white matter
    given_csf : File
        for method given, probability of CSF
    device : str
        auto, cpu or cuda, for method deepnormalize
    implementation : str
        version of the code, part of the cache key

    Returns
    -------
    dseg_file : NiftiGz
        1 GM, 2 WM, 3 CSF
    gm_file : NiftiGz
        probability of grey matter
    wm_file : NiftiGz
        probability of white matter
    csf_file : NiftiGz
        probability of CSF
    record_file : Json
        method and volumes
    """
    from biascorr_pydra.anatomy.tissue import segment_file

    written = segment_file(
        path_of(in_file),
        Path.cwd(),
        mask_file=path_of(mask_file),
        method=method,
        suffix=suffix,
        given_dseg=path_of(given_dseg),
        given_gm=path_of(given_gm),
        given_wm=path_of(given_wm),
        given_csf=path_of(given_csf),
        device=device,
    )
    return cast(tuple[NiftiGz, NiftiGz | None, NiftiGz | None, NiftiGz | None, Json], tuple(written))


@requires(needs.for_measure)
@python.define(outputs=["metrics_file"])
def MeasureBias(  # noqa: N802
    in_file: File,
    out_file: File,
    bias_file: File,
    mask_file: File | None = None,
    dseg_file: File | None = None,
    no_dseg_reason: str = "no tissue segmentation was given",
    implementation: str = __version__,
) -> Json:
    """Measure an image before and after correction, and its field.

    Parameters
    ----------
    in_file : File
        the acquired image
    out_file : File
        the corrected image
    bias_file : File
        the field that was divided out
    mask_file : File
        brain mask; the detected head by default
    dseg_file : File
        tissue segmentation, 1 GM, 2 WM, 3 CSF
    no_dseg_reason : str
        why there is no segmentation, if there is none
    implementation : str
        version of the code, part of the cache key

    Returns
    -------
    metrics_file : Json
        before, after, field, and the reasons for what is undefined
    """
    from biascorr_pydra.quality import measure_file

    metrics_file = measure_file(
        path_of(in_file),
        path_of(out_file),
        path_of(bias_file),
        Path.cwd(),
        mask_file=path_of(mask_file),
        dseg_file=path_of(dseg_file),
        no_dseg_reason=no_dseg_reason,
    )
    return cast(Json, metrics_file)


def method_implementation(method: str, fallback: str = NO_FALLBACK) -> str:
    """Version and weights of a method and its fallback, for the ``implementation`` of :class:`CorrectBias`."""
    from biascorr_pydra.methods.identity import implementation

    return f"{__version__} {implementation(method, fallback)}"


def segmenter_implementation(method: str, version: str = __version__) -> str:
    """The version, and the weights of a segmentation that has any, for that of :class:`SegmentTissue`."""
    if method not in NETWORKS:
        return version
    from biascorr_pydra.weights import sha256_of

    return f"{version} {sha256_of(NETWORKS[method])}"
