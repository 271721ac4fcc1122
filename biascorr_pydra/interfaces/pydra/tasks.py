"""Pydra tasks over the package's functions.

Images are typed as files, so that Pydra's cache follows their contents. A task's ``implementation`` input names the
code and weights behind it: another version is another cache entry.
"""

from pathlib import Path
from typing import Any

from fileformats.application import Json
from fileformats.generic import File
from fileformats.medimage import NiftiGz
from pydra.compose import python

from biascorr_pydra import __version__
from biascorr_pydra.methods import DEFAULT_METHOD
from biascorr_pydra.methods.spec import NO_FALLBACK
from biascorr_pydra.resources import requires, together

from . import needs

__all__ = [
    "ApplyBias",
    "CorrectBias",
    "ExtractBrain",
    "MeasureBias",
    "SegmentTissue",
    "method_implementation",
    "segmenter_implementation",
]


def _path(file: Any) -> Path | None:
    return None if file is None else Path(str(file))


def _estimate_together(tasks: list) -> Any:
    from biascorr_pydra.correction.batch import estimate_together

    return estimate_together(
        [
            {
                "in_file": _path(task.in_file),
                "mask_file": _path(task.mask_file),
                "weight_file": _path(task.weight_file),
                **{name: getattr(task, name) for name in ("method", "preset", "options", "device", "seed")},
            }
            for task in tasks
        ]
    )


@together(_estimate_together)
@requires(needs.for_correction)
@python.define(outputs=["out_file", "bias_file", "record_file", "uncertainty_file"])
def CorrectBias(
    in_file: File,
    method: str = DEFAULT_METHOD,
    mask_file: File | None = None,
    weight_file: File | None = None,
    preset: str | None = None,
    options: dict[str, Any] | None = None,
    device: str = "auto",
    seed: int = 0,
    gate: bool = True,
    fallback: str = NO_FALLBACK,
    check_response: bool = False,
    uncertainty: bool = False,
    metadata: dict[str, Any] | None = None,
    implementation: str = __version__,
) -> tuple[NiftiGz, NiftiGz, Json, NiftiGz | None]:
    """Estimate and remove the bias field of one image.

    Parameters
    ----------
    in_file : File
        the image, .nii or .nii.gz, 3-D
    method : str
        the correction method, see `biascorr methods`
    mask_file : File
        where to estimate the field
    weight_file : File
        how much each voxel counts, for n4 and ants-n4
    preset : str
        a named set of the method's parameters
    options : dict
        single parameters of the method
    device : str
        auto, cpu or cuda
    seed : int
        for methods that draw random numbers
    gate : bool
        judge the field; one that is negligible or rejected is not divided out
    fallback : str
        none, or a method whose field stands in for a rejected one or a refusal
    check_response : bool
        also judge by whether the method sees a known extra field
    uncertainty : bool
        also write how far the fields of the mirror images are apart
    metadata : dict
        the image's BIDS sidecar; read from beside in_file by default, which the cache does not follow
    implementation : str
        version of code and weights, part of the cache key

    Returns
    -------
    out_file : NiftiGz
        the corrected image, float32
    bias_file : NiftiGz
        the bias field, mean 1 over the mask
    record_file : Json
        what was done and found
    uncertainty_file : NiftiGz
        standard deviation of the log field over the mirror images, if asked for
    """
    from biascorr_pydra.correction.correct import correct_file

    names = ("corrected.nii.gz", "bias.nii.gz", "record.json", "uncertainty.nii.gz")
    out_file, bias_file, record_file, uncertainty_file = (Path(name).absolute() for name in names)
    uncertainty_file = uncertainty_file if uncertainty else None
    correct_file(
        _path(in_file),
        out_file,
        method=method,
        mask_file=_path(mask_file),
        weight_file=_path(weight_file),
        bias_file=bias_file,
        record_file=record_file,
        device=device,
        seed=seed,
        preset=preset,
        options=options,
        gate=gate,
        fallback=fallback,
        check_response=check_response,
        uncertainty_file=uncertainty_file,
        metadata=metadata,
        overwrite=True,  # the task's own folder: what an interrupted run left there is replaced
    )
    return out_file, bias_file, record_file, uncertainty_file


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
    apply_file(_path(bias_file), _path(in_file), out_file, overwrite=True)
    return out_file


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
    from biascorr_pydra.anatomy.steps import extract_file

    return tuple(
        extract_file(
            _path(in_file), Path.cwd(), method=method, suffix=suffix, mask_file=_path(mask_file), device=device
        )
    )


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
    from biascorr_pydra.anatomy.steps import segment_file

    return tuple(
        segment_file(
            _path(in_file),
            Path.cwd(),
            mask_file=_path(mask_file),
            method=method,
            suffix=suffix,
            given_dseg=_path(given_dseg),
            given_gm=_path(given_gm),
            given_wm=_path(given_wm),
            given_csf=_path(given_csf),
        )
    )


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
    from biascorr_pydra.anatomy.steps import measure_file

    return measure_file(
        _path(in_file),
        _path(out_file),
        _path(bias_file),
        Path.cwd(),
        mask_file=_path(mask_file),
        dseg_file=_path(dseg_file),
        no_dseg_reason=no_dseg_reason,
    )


def method_implementation(method: str, fallback: str = NO_FALLBACK) -> str:
    """Version and weights of a method and its fallback, for the ``implementation`` of :class:`CorrectBias`."""
    from biascorr_pydra.methods.identity import implementation

    return f"{__version__} {implementation(method, fallback)}"


def segmenter_implementation(method: str, version: str = __version__) -> str:
    """The version, and the weights of a segmentation that has any, for that of :class:`SegmentTissue`."""
    if method != "deepnormalize":
        return version
    from biascorr_pydra.weights import sha256_of

    return f"{version} {sha256_of(method)}"
