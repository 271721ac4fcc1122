"""One scan of a cohort: one nested Pydra workflow per scan, so that a scan that fails never stops another.

Per scan: a brain mask on the acquired image; tissues segmented once, on the scan as its only method corrects it, or the
reference method where several are compared; then one nested workflow per method, which corrects, measures on that one
segmentation, and puts the files under their BIDS names.
"""

import json
from pathlib import Path

from fileformats.generic import File
from pydra.compose import python, workflow

from biascorr_pydra import __version__
from biascorr_pydra.anatomy.tissue import reason_against
from biascorr_pydra.bids import Job
from biascorr_pydra.cohort.publish import publish
from biascorr_pydra.errors import InvalidImageError
from biascorr_pydra.methods.spec import MethodSpec
from biascorr_pydra.resources import Resources, requires

from .needs import memory_gb
from .tasks import (
    CorrectBias,
    ExtractBrain,
    MeasureBias,
    SegmentTissue,
    method_implementation,
    segmenter_implementation,
)

__all__ = ["CorrectByMethod", "CorrectScan"]


@python.define(outputs=["metrics_file"])
def PublishScan(  # noqa: N802 (a Pydra task is a class)
    work: str,
    spec: str,
    key: str,
    segmentation: str,
    corrected: File,
    bias: File,
    correction_record: File,
    metrics_record: File,
    mask: File | None = None,
    mask_record: File | None = None,
    dseg: File | None = None,
    gm: File | None = None,
    wm: File | None = None,
    csf: File | None = None,
    tissue_record: File | None = None,
) -> str:
    """Put one scan's results by one method under their BIDS names.

    Parameters
    ----------
    work : str
        the scan and the run's choices, JSON
    spec : str
        the method as asked for
    key : str
        what this work is called
    segmentation : str
        which image was segmented, or why none was
    corrected : File
        the corrected image
    bias : File
        the field
    correction_record : File
        record of the correction
    metrics_record : File
        metrics before and after
    mask : File
        the brain mask
    mask_record : File
        record of the brain extraction
    dseg : File
        the segmentation
    gm : File
        probability of gray matter
    wm : File
        probability of white matter
    csf : File
        probability of CSF
    tissue_record : File
        record of the segmentation

    Returns
    -------
    metrics_file : str
        the metrics file among the outputs
    """
    files = {"corrected": corrected, "bias": bias, "mask": mask, "dseg": dseg, "GM": gm, "WM": wm, "CSF": csf}
    records = {
        "correction": correction_record,
        "metrics": metrics_record,
        "brain": mask_record,
        "tissue": tissue_record,
    }
    records = {name: json.loads(Path(str(file)).read_text()) if file else None for name, file in records.items()}
    if records["tissue"]:
        records["tissue"]["Image"] = segmentation
    chosen = json.loads(work)
    job = Job.from_dict(chosen["job"])
    if records["correction"]["in_sha256"] != chosen["source_sha256"]:
        raise InvalidImageError("the file changed during the run", file=job.source, next_step="Run again.")
    path = publish(
        job,
        Path(chosen["out_dir"]) / MethodSpec.parse(spec).label,
        {kind: Path(str(file)) for kind, file in files.items() if file is not None},
        records,
        key=key,
        run_id=chosen["run_id"],
        overwrite=chosen["overwrite"],
    )
    return str(path)


@workflow.define(outputs=["metrics_file"])
def CorrectByMethod(
    in_file: File,
    work: str,
    spec: str,
    key: str,
    segmentation: str,
    mask: File | None = None,
    mask_record: File | None = None,
    dseg: File | None = None,
    gm: File | None = None,
    wm: File | None = None,
    csf: File | None = None,
    tissue_record: File | None = None,
) -> str:
    """Correct one scan by one method, measure it, and put the results under their BIDS names.

    Parameters
    ----------
    in_file : File
        the acquired image
    work : str
        the scan and the run's choices, JSON
    spec : str
        the method, name or name:preset
    key : str
        what this work is called
    segmentation : str
        which image was segmented, or why none was
    mask : File
        brain mask
    mask_record : File
        record of the brain extraction
    dseg : File
        tissue segmentation
    gm : File
        probability of gray matter
    wm : File
        probability of white matter
    csf : File
        probability of CSF
    tissue_record : File
        record of the segmentation

    Returns
    -------
    metrics_file : str
        the metrics file among the outputs
    """
    correction = workflow.add(_correction(in_file, work, MethodSpec.parse(spec), mask), name="correct")
    metrics = workflow.add(
        MeasureBias(
            in_file=in_file,
            out_file=correction.out_file,
            bias_file=correction.bias_file,
            mask_file=mask,
            dseg_file=dseg,
            no_dseg_reason=segmentation,
            implementation=_implementation(work),
        ),
        name="measure",
    )
    published = workflow.add(
        PublishScan(
            work=work,
            spec=spec,
            key=key,
            segmentation=segmentation,
            corrected=correction.out_file,
            bias=correction.bias_file,
            correction_record=correction.record_file,
            metrics_record=metrics.metrics_file,
            mask=mask,
            mask_record=mask_record,
            dseg=dseg,
            gm=gm,
            wm=wm,
            csf=csf,
            tissue_record=tissue_record,
        ),
        name="publish",
    )
    return published.metrics_file


def _correction(in_file, work: str, spec: MethodSpec, mask) -> CorrectBias:
    chosen = json.loads(work)
    return CorrectBias(
        in_file=in_file,
        method=spec.method,
        preset=spec.preset,
        mask_file=mask,
        device=chosen["device"],
        seed=chosen["seed"],
        gate=chosen["gate"],
        fallback=chosen["fallback"],
        metadata=chosen["job"]["metadata"],
        implementation=f"{method_implementation(spec.method, chosen['fallback'])} {_implementation(work)}",
    )


def _implementation(work: str) -> str:
    """Version and content hash: Pydra's own hash of a file is remembered by path and time, and can be out of date."""
    return f"{__version__} {json.loads(work)['content']}"


def _scan_needs(task) -> Resources | None:
    """One CPU for the whole scan, from end to end in one process; on GPUs its steps are placed one by one."""
    try:
        chosen = json.loads(task.work)
    except (TypeError, ValueError):
        return None
    if chosen["device"] == "cuda":
        return None
    return Resources(mem_gb=memory_gb(task.in_file, 1.2, 80))


@requires(_scan_needs)
@workflow.define(outputs=["metrics_files"])
def CorrectScan(
    in_file: File,
    work: str,
    specs: list[str],
    keys: list[str],
    given_mask: File | None = None,
    given_dseg: File | None = None,
    given_gm: File | None = None,
    given_wm: File | None = None,
    given_csf: File | None = None,
) -> list[str]:
    """Correct one scan by every method asked for, on one mask and one segmentation.

    Parameters
    ----------
    in_file : File
        the acquired image
    work : str
        the scan and the run's choices, JSON
    specs : list
        methods, each name or name:preset
    keys : list
        what each method's work is called
    given_mask : File
        brain mask from --derivatives
    given_dseg : File
        segmentation from --derivatives
    given_gm : File
        gray matter probability from --derivatives
    given_wm : File
        white matter probability from --derivatives
    given_csf : File
        CSF probability from --derivatives

    Returns
    -------
    metrics_files : list
        one metrics file per method
    """
    chosen = json.loads(work)
    suffix = chosen["job"]["suffix"]
    shared = {}
    if chosen["skull_strip"] != "none":
        brain = workflow.add(
            ExtractBrain(
                in_file=in_file,
                method=chosen["skull_strip"],
                suffix=suffix,
                mask_file=given_mask,
                device=chosen["device"],
                implementation=_implementation(work),
            ),
            name="brain",
        )
        shared |= {"mask": brain.mask_file, "mask_record": brain.record_file}
    method = chosen["segmentation"]
    reason = reason_against(suffix, method, masked="mask" in shared)
    shared["segmentation"] = reason or "the given segmentation's own image"
    if not reason:
        reference = in_file
        if method != "given":
            by = chosen["reference"]
            found = workflow.add(_correction(in_file, work, MethodSpec.parse(by), shared.get("mask")), name="reference")
            reference = found.out_file
            shared["segmentation"] = f"the scan as corrected by {by}, for every method of the run"
        tissue = workflow.add(
            SegmentTissue(
                in_file=reference,
                mask_file=shared.get("mask"),
                method=method,
                suffix=suffix,
                given_dseg=given_dseg,
                given_gm=given_gm,
                given_wm=given_wm,
                given_csf=given_csf,
                implementation=segmenter_implementation(method, _implementation(work)),
            ),
            name="tissue",
        )
        shared |= {"dseg": tissue.dseg_file, "gm": tissue.gm_file, "wm": tissue.wm_file, "csf": tissue.csf_file}
        shared["tissue_record"] = tissue.record_file
    by_method = workflow.add(
        CorrectByMethod(in_file=in_file, work=work, **shared)
        .split(("spec", "key"), spec=specs, key=keys)
        .combine("spec"),
        name="by_method",
    )
    return by_method.metrics_file
