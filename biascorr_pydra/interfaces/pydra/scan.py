"""One scan of a cohort: one nested Pydra workflow per scan, so that a scan that fails never stops another.

Per scan: a brain mask on the acquired image; tissues segmented once, on the scan as its only method corrects it, or the
reference method where several are compared; then one nested workflow per method, which corrects, measures on that one
segmentation, and puts the files under their BIDS names.

Files travel from step to step under the kinds by which :data:`biascorr_pydra.bids.CORRECTED` declares them: an image
that is declared there, and that its step makes, is published without an edit here.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fileformats.generic import File
from pydra.compose import python, workflow

from biascorr_pydra import __version__
from biascorr_pydra.anatomy.tissue import reason_against
from biascorr_pydra.bids import CORRECTED, TISSUES, Job
from biascorr_pydra.cohort.correction import UNSEGMENTED
from biascorr_pydra.cohort.publish import metrics_record, publish
from biascorr_pydra.errors import InvalidImageError
from biascorr_pydra.methods.spec import NO_FALLBACK, MethodSpec
from biascorr_pydra.resources import Resources, requires

from . import needs
from .tasks import (
    CorrectBias,
    ExtractBrain,
    MeasureBias,
    SegmentTissue,
    method_implementation,
    segmenter_implementation,
)

__all__ = ["GIVEN", "CorrectByMethod", "CorrectScan"]

#: Inputs of CorrectScan for the files that --derivatives gives, by kind.
GIVEN = {kind: f"given_{kind.lower()}" for kind in ("mask", "dseg", *TISSUES)}
ONCE = ("brain", "tissue")  # steps that a scan takes once, whatever its methods
BY_METHOD = ("correction", "metrics")


def _inputs_for(arg: Callable, steps: tuple[str, ...]) -> dict[str, Any]:
    """Inputs of a task for all that these steps make: their images by kind, and the record of each."""
    inputs = {image.kind: f"{image.kind} of the step {image.step}" for image in CORRECTED.made_by(*steps)}
    inputs |= {f"{step}_record": f"record of the step {step}" for step in steps}
    return {name: arg(type=File | None, default=None, help=text) for name, text in inputs.items()}


def _made(step: str, node: Any) -> dict[str, Any]:
    """What a step makes, a node of the workflow, under the names of :func:`_inputs_for`."""
    images = {image.kind: getattr(node, image.field) for image in CORRECTED.made_by(step)}
    return {**images, f"{step}_record": node.record_file}


@python.define(inputs=_inputs_for(python.arg, (*BY_METHOD, *ONCE)), outputs=["metrics_file"])
def PublishScan(work: str, spec: str, key: str, segmentation: str, **files: File | None) -> str:  # noqa: N802
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

    Returns
    -------
    metrics_file : str
        the metrics file among the outputs
    """
    paths = {name: Path(str(file)) for name, file in files.items() if file is not None}
    steps = [step for step in (*BY_METHOD, *ONCE) if f"{step}_record" in paths]
    records = {step: json.loads(paths.pop(f"{step}_record").read_text()) for step in steps}
    if "tissue" in records:
        records["tissue"]["Image"] = segmentation
    chosen = json.loads(work)
    job = Job.from_dict(chosen["job"])
    if records["correction"]["in_sha256"] != chosen["source_sha256"]:
        raise InvalidImageError("the file changed during the run", file=job.source, next_step="Run again.")
    record_file = publish(
        job,
        CORRECTED,
        Path(chosen["out_dir"]) / MethodSpec.parse(spec).label,
        paths,
        records,
        metrics_record(job, records),
        key=key,
        run_id=chosen["run_id"],
        overwrite=chosen["overwrite"],
    )
    return str(record_file)


@workflow.define(inputs=_inputs_for(workflow.arg, ONCE), outputs=["metrics_file"])
def CorrectByMethod(in_file: File, work: str, spec: str, key: str, segmentation: str, **shared: File | None) -> str:
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

    Returns
    -------
    metrics_file : str
        the metrics file among the outputs
    """
    correction = workflow.add(_correction(in_file, work, MethodSpec.parse(spec), shared["mask"]), name="correct")
    metrics = workflow.add(
        MeasureBias(
            in_file=in_file,
            out_file=correction.out_file,
            bias_file=correction.bias_file,
            mask_file=shared["mask"],
            dseg_file=shared["dseg"],
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
            metrics_record=metrics.metrics_file,
            **_made("correction", correction),
            **shared,
        ),
        name="publish",
    )
    return published.metrics_file


def _correction(in_file: Any, work: str, spec: MethodSpec, mask: Any) -> Any:
    chosen = json.loads(work)
    return CorrectBias(
        in_file=in_file,
        method=spec.method,
        preset=spec.preset,
        mask_file=mask,
        metadata=chosen["job"]["metadata"],
        implementation=f"{method_implementation(spec.method, chosen['options']['fallback'])} {_implementation(work)}",
        **chosen["options"],
    )


def _implementation(work: str) -> str:
    """Version and content hash: Pydra's own hash of a file is remembered by path and time, and can be out of date."""
    return f"{__version__} {json.loads(work)['content']}"


def _scan_needs(task: Any) -> Resources | None:
    """One CPU for the whole scan, from end to end in one process; on GPUs its steps are placed one by one."""
    try:
        chosen = json.loads(task.work)
    except (TypeError, ValueError):
        return None
    if chosen["options"]["device"] == "cuda":
        return None
    return Resources(mem_gb=max(need.mem_gb for need in _step_needs(task.in_file, chosen, task.specs) if need.mem_gb))


def _step_needs(in_file: Any, chosen: dict[str, Any], specs: list[str]) -> list[Resources]:
    """What each step of a scan needs by itself; they run one after another."""
    named = list(specs)
    if chosen["segmentation"] not in UNSEGMENTED:
        named.append(chosen["reference"])
    if chosen["options"]["fallback"] != NO_FALLBACK:
        named.append(chosen["options"]["fallback"])
    step = partial(SimpleNamespace, in_file=in_file, device="cpu", suffix=chosen["job"]["suffix"])
    asked = [needs.for_correction(step(method=MethodSpec.parse(text).method)) for text in named]
    if chosen["skull_strip"] != "none":
        asked.append(needs.for_brain(step(method=chosen["skull_strip"])))
    if chosen["segmentation"] != "none":
        asked.append(needs.for_tissue(step(method=chosen["segmentation"])))
    return [*asked, needs.for_measure(step())]


@requires(_scan_needs)
@workflow.define(
    inputs={
        name: workflow.arg(type=File | None, default=None, help=f"{kind} from --derivatives")
        for kind, name in GIVEN.items()
    },
    outputs=["metrics_files"],
)
def CorrectScan(in_file: File, work: str, specs: list[str], keys: list[str], **given: File | None) -> list[str]:
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

    Returns
    -------
    metrics_files : list
        one metrics file per method
    """
    chosen = json.loads(work)
    shared: dict[str, Any] = {}
    if chosen["skull_strip"] != "none":
        shared |= _made("brain", _add_brain(in_file, work, given["given_mask"]))
    reason = reason_against(chosen["job"]["suffix"], chosen["segmentation"], masked="mask" in shared)
    segmented = reason or "the given segmentation's own image"
    if not reason:
        reference = in_file
        if chosen["segmentation"] != "given":
            reference = _add_reference(in_file, work, shared.get("mask")).out_file
            segmented = f"the scan as corrected by {chosen['reference']}, for every method of the run"
        shared |= _made("tissue", _add_tissue(reference, work, shared.get("mask"), given))
    by_method = workflow.add(
        CorrectByMethod(in_file=in_file, work=work, segmentation=segmented, **shared)
        .split(("spec", "key"), spec=specs, key=keys)
        .combine("spec"),
        name="by_method",
    )
    return by_method.metrics_file


def _add_brain(in_file: Any, work: str, given_mask: Any) -> Any:
    chosen = json.loads(work)
    return workflow.add(
        ExtractBrain(
            in_file=in_file,
            method=chosen["skull_strip"],
            suffix=chosen["job"]["suffix"],
            mask_file=given_mask,
            device=chosen["options"]["device"],
            implementation=_implementation(work),
        ),
        name="brain",
    )


def _add_reference(in_file: Any, work: str, mask: Any) -> Any:
    reference = MethodSpec.parse(json.loads(work)["reference"])
    return workflow.add(_correction(in_file, work, reference, mask), name="reference")


def _add_tissue(in_file: Any, work: str, mask: Any, given: dict[str, Any]) -> Any:
    chosen = json.loads(work)
    return workflow.add(
        SegmentTissue(
            in_file=in_file,
            mask_file=mask,
            method=chosen["segmentation"],
            suffix=chosen["job"]["suffix"],
            device=chosen["options"]["device"],
            implementation=segmenter_implementation(chosen["segmentation"], _implementation(work)),
            **{name: file for name, file in given.items() if name != "given_mask"},
        ),
        name="tissue",
    )
