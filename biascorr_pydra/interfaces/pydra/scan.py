"""One scan of a cohort: one nested Pydra workflow per scan, so that a scan that fails never stops another.

Per scan: a brain mask on the acquired image; then one nested workflow per method, which corrects, segments the tissues
in its own corrected image, measures on them, and puts the files under their BIDS names; last the judge, whose tissue is
no method's own, compares what has been published.

Files travel from step to step under the kinds by which :data:`biascorr_pydra.bids.CORRECTED` declares them: an image
that is declared there, and that its step makes, is published without an edit here.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fileformats.generic import File
from pydra.compose import python, workflow

from biascorr_pydra import __version__
from biascorr_pydra.anatomy.tissue import reason_against
from biascorr_pydra.bids import CORRECTED, TISSUES, Job
from biascorr_pydra.cohort.judging import judge_scan
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

__all__ = ["GIVEN", "CorrectByMethod", "CorrectScan", "JudgeScan"]

#: Inputs of CorrectScan for the files that --derivatives gives, by kind.
GIVEN = {kind: f"given_{kind.lower()}" for kind in ("mask", "dseg", *TISSUES)}
GIVEN_TISSUE = {kind: name for kind, name in GIVEN.items() if kind != "mask"}
ONCE = ("brain",)  # steps that a scan takes once, whatever its methods, and whose files they share
BY_METHOD = ("correction", "tissue", "metrics")
#: What was segmented, in the records of those who measure on it.
OWN_IMAGE = "the method's own corrected image"
GIVEN_IMAGE = "the given segmentation's own image"


def _given(arg: Callable, names: Mapping[str, str]) -> dict[str, Any]:
    """Inputs of a task for files of --derivatives, as :data:`GIVEN` names them."""
    return {
        name: arg(type=File | None, default=None, help=f"{kind} from --derivatives") for kind, name in names.items()
    }


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
        settings=chosen["settings"][MethodSpec.parse(spec).label],
        overwrite=chosen["overwrite"],
    )
    return str(record_file)


@workflow.define(
    inputs={**_inputs_for(workflow.arg, ONCE), **_given(workflow.arg, GIVEN_TISSUE)}, outputs=["metrics_file"]
)
def CorrectByMethod(in_file: File, work: str, spec: str, key: str, **files: File | None) -> str:
    """Correct one scan by one method, segment and measure the result, and put all under their BIDS names.

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

    Returns
    -------
    metrics_file : str
        the metrics file among the outputs
    """
    given = {name: files.pop(name) for name in GIVEN_TISSUE.values()}
    chosen, mask = json.loads(work), files["mask"]
    correction = workflow.add(_correction(in_file, work, MethodSpec.parse(spec), mask), name="correct")
    made = _made("correction", correction)
    method, masked = chosen["segmentation"], chosen["skull_strip"] != "none"
    segmentation = reason_against(chosen["job"]["suffix"], method, masked=masked)
    if not segmentation:
        is_given = method == "given"  # then one segmentation, which is checked once for all methods
        segmented, segmentation = (in_file, GIVEN_IMAGE) if is_given else (correction.out_file, OWN_IMAGE)
        made |= _made("tissue", _add_tissue(segmented, work, mask, given))
    metrics = workflow.add(
        MeasureBias(
            in_file=in_file,
            out_file=correction.out_file,
            bias_file=correction.bias_file,
            mask_file=mask,
            dseg_file=made.get("dseg"),
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
            **made,
            **files,
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
    if chosen["options"]["fallback"] != NO_FALLBACK:
        named.append(chosen["options"]["fallback"])
    step = partial(SimpleNamespace, in_file=in_file, device="cpu", suffix=chosen["job"]["suffix"])
    asked = [needs.for_correction(step(method=MethodSpec.parse(text).method)) for text in named]
    if chosen["skull_strip"] != "none":
        asked.append(needs.for_brain(step(method=chosen["skull_strip"])))
    if chosen["segmentation"] != "none":
        asked.append(needs.for_tissue(step(method=chosen["segmentation"])))
    return [*asked, needs.for_measure(step()), needs.for_judge(step())]


@requires(needs.for_judge)
@python.define(outputs=["judge_file"])
def JudgeScan(in_file: File, work: str, metrics_files: list[str]) -> str | None:  # noqa: N802
    """Compare what a scan's methods have delivered, on tissue that none of them made.

    Parameters
    ----------
    in_file : File
        the acquired image
    work : str
        the scan and the run's choices, JSON
    metrics_files : list
        the methods' metrics files, to wait for

    Returns
    -------
    judge_file : str
        the judge's record; None where it could not be made, which whoever writes the report tries again and tells
    """
    chosen = json.loads(work)
    try:
        judge_file = judge_scan(Path(chosen["out_dir"]), Job.from_dict(chosen["job"]), run_id=chosen["run_id"])
    except Exception:  # whatever it is: the corrections are there, and so must be the report
        return None
    return None if judge_file is None else str(judge_file)


@requires(_scan_needs)
@workflow.define(inputs=_given(workflow.arg, GIVEN), outputs=["metrics_files"])
def CorrectScan(in_file: File, work: str, specs: list[str], keys: list[str], **given: File | None) -> list[str]:
    """Correct one scan by every method asked for, on one mask, and judge what they deliver.

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
    tissue = {name: given[name] for name in GIVEN_TISSUE.values()}
    by_method = workflow.add(
        CorrectByMethod(in_file=in_file, work=work, **shared, **tissue)
        .split(("spec", "key"), spec=specs, key=keys)
        .combine("spec"),
        name="by_method",
    )
    workflow.add(JudgeScan(in_file=in_file, work=work, metrics_files=by_method.metrics_file), name="judge")
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
            **given,
        ),
        name="tissue",
    )
