"""The cohort as one Pydra workflow over the scans that are not done yet."""

import json
import uuid
from functools import lru_cache, partial
from pathlib import Path

from fileformats.generic import File
from pydra.compose import python, workflow

from biascorr_pydra import bids, report
from biascorr_pydra.bids import Job
from biascorr_pydra.cohort import SHARED, CorrectionPlan, Settings, plan_correction, status
from biascorr_pydra.cohort.judging import prepare_judge, unjudged
from biascorr_pydra.correction.options import DEFAULTS, CorrectionOptions
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.interfaces.judging import judge_aloud
from biascorr_pydra.methods import DEFAULT_METHOD, get_corrector
from biascorr_pydra.methods.spec import MethodSpec
from biascorr_pydra.resources import Resources, requires

from .scan import GIVEN, CorrectScan, JudgeScan
from .tasks import method_implementation

__all__ = [
    "CorrectBids",
    "left_to_judge",
    "options_of",
    "plan_of",
    "prepare",
    "require_absolute",
    "scan_task",
    "settings_of",
]


@requires(lambda task: Resources(cpus=task.cpus))
@python.define(outputs=["report_file"])
def WriteReport(  # noqa: N802
    out_dir: str,
    rows: list[list[str]],
    run_id: str,
    scan_pages: bool = True,
    cpus: int = 1,
    metrics_files: list | None = None,
    judge_files: list | None = None,
) -> str:
    """Judge what has not been judged, and write the status table, the group metrics and the report of a cohort.

    Parameters
    ----------
    out_dir : str
        the output folder
    rows : list
        the status table's rows
    run_id : str
        changes with every run, so that the report follows the files
    scan_pages : bool
        write the scans' pages, too
    cpus : int
        processes that make them
    metrics_files : list
        the scans' metrics files, to wait for
    judge_files : list
        the judge's records of scans that were corrected before, to wait for

    Returns
    -------
    report_file : str
        the report
    """
    status.write(Path(out_dir), status.judged(Path(out_dir), [status.Row(*row) for row in rows]))
    judge_aloud(Path(out_dir), run_id)
    return str(report.write_report(Path(out_dir), scan_pages=scan_pages, n_procs=cpus).html)


@workflow.define(outputs=["report_file"])
def CorrectBids(
    bids_dir: Path,
    out_dir: Path,
    method: list[str] | None = None,
    participant_label: list[str] | None = None,
    session_label: list[str] | None = None,
    suffix: list[str] | None = None,
    skull_strip: str = "auto",
    segmentation: str = "atropos",
    derivatives: Path | None = None,
    device: str = DEFAULTS.device,
    seed: int = DEFAULTS.seed,
    overwrite: bool = False,
    allow_undescribed: bool = False,
    gate: bool = DEFAULTS.gate,
    fallback: str = DEFAULTS.fallback,
    scan_pages: bool = True,
    recompute: bool = False,
    run_id: str | None = None,
    report_cpus: int = 1,
) -> str:
    """Correct the bias field of every anatomical image of a BIDS data set, and report what it did.

    Parameters
    ----------
    bids_dir : Path
        the BIDS data set
    out_dir : Path
        where the derivative data sets (one per method), metrics.tsv and report.html go
    method : list
        correction method, name or name:preset, repeatable; see `biascorr methods` [default: deepem]
    participant_label : list
        only these participants, with or without sub-, repeatable
    session_label : list
        only these sessions, with or without ses-, repeatable
    suffix : list
        only these contrasts (T1w, T2w, FLAIR ...), repeatable; every anatomical image by default
    skull_strip : str
        brain mask: auto (deepbet for T1w, template for the rest), deepbet, template, given or none
    segmentation : str
        tissues of each corrected image: atropos, kmeans, deepnormalize, given or none
    derivatives : Path
        a BIDS derivative data set with the masks and segmentations for `given`
    device : str
        auto, cpu or cuda
    seed : int
        for methods that draw random numbers
    overwrite : bool
        also replace files in the output folder that this package did not write
    allow_undescribed : bool
        also take a data set without dataset_description.json
    gate : bool
        judge every field; one that is negligible or rejected is not divided out
    fallback : str
        none, or a method (METHOD or METHOD:PRESET) whose field stands in for a rejected one or a refusal
    scan_pages : bool
        write a page for every scan, too, not only the cohort's report
    recompute : bool
        take every scan as not done; `pydra run --rerun` sets it
    run_id : str
        names this run; `pydra run` sets it
    report_cpus : int
        CPUs for the scans' pages, when all scans are done; `pydra run` sets it to those that the worker has

    Returns
    -------
    report_file : str
        path of report.html
    """
    settings = settings_of(CorrectBids(**locals()))  # at this point, the inputs and nothing else
    require_absolute(bids_dir=bids_dir, out_dir=out_dir, derivatives=derivatives)
    run_id = run_id or uuid.uuid4().hex
    plan = plan_of(settings, recompute, run_id)
    prepare(plan)
    metrics_files = None
    if plan.pending:
        tasks = [scan_task(plan, job, specs, run_id) for job, specs in plan.tasks]
        fields = ("in_file", "work", "specs", "keys", *GIVEN.values())
        values = {name: [getattr(task, name) for task in tasks] for name in fields}
        scans = workflow.add(CorrectScan().split(fields, **values).combine("in_file"), name="scan")
        metrics_files = scans.metrics_files
    judge_files, rest = None, left_to_judge(plan, run_id)
    if rest:
        values = {name: [getattr(task, name) for task in rest] for name in ("in_file", "work")}
        judges = workflow.add(
            JudgeScan(metrics_files=[]).split(tuple(values), **values).combine("in_file"), name="judge"
        )
        judge_files = judges.judge_file
    rows = [list(row) for row in status.expected(plan)]
    if not plan.pending and not rest and report.is_up_to_date(settings.out_dir):
        status.write(settings.out_dir, status.judged(settings.out_dir, [status.Row(*row) for row in rows]))
        return str(report.ReportPaths.inside(settings.out_dir).html)
    written = workflow.add(
        WriteReport(
            out_dir=str(settings.out_dir),
            rows=rows,
            run_id=run_id,
            scan_pages=settings.scan_pages,
            cpus=report_cpus,
            metrics_files=metrics_files,
            judge_files=judge_files,
        ),
        name="report",
    )
    return written.report_file


def left_to_judge(plan: CorrectionPlan, run_id: str) -> list[workflow.Task]:
    """Scans that need no correction, but the judge: after a new version of it, or a run that was killed before it.

    Not those that cannot be begun, because some file is not there: they are judged without it, before the report.
    """
    pending = {job.relative for job, _ in plan.pending}
    waiting = {job.relative for job in unjudged(plan.settings.out_dir)} - pending - set(plan.problems)
    return [scan_task(plan, job, (), run_id) for job in plan.jobs if job.relative in waiting]


def require_absolute(**paths: Path | None) -> None:
    """Refuse relative paths: Pydra has changed the working folder when a workflow is constructed.

    Raises
    ------
    InvalidParameterError
    """
    for name, path in paths.items():
        if path is not None and not Path(path).is_absolute():
            raise InvalidParameterError(f"{name} must be an absolute path", value=str(path))


def options_of(task: workflow.Task) -> CorrectionOptions:
    """The options of a run's corrections, from the inputs of its workflow."""
    return CorrectionOptions(**{name: getattr(task, name) for name in SHARED})


def settings_of(task: workflow.Task) -> Settings:
    """The run's choices as the planner takes them; ``task`` is a :class:`CorrectBids`."""
    return Settings(
        bids_dir=Path(task.bids_dir),
        out_dir=Path(task.out_dir),
        methods=tuple(MethodSpec.parse(text) for text in task.method or [DEFAULT_METHOD]),
        participants=tuple(task.participant_label or ()),
        sessions=tuple(task.session_label or ()),
        suffixes=tuple(task.suffix or ()),
        skull_strip=task.skull_strip,
        segmentation=task.segmentation,
        derivatives=Path(task.derivatives) if task.derivatives else None,
        options=options_of(task),
        overwrite=task.overwrite,
        allow_undescribed=task.allow_undescribed,
        scan_pages=task.scan_pages,
    )


@lru_cache(maxsize=256)  # a study of many data sets has one plan for each
def plan_of(settings: Settings, recompute: bool, run_id: str) -> CorrectionPlan:
    """The plan of one run, made once per process."""
    return plan_correction(settings, partial(_implementation, fallback=settings.options.fallback), rerun=recompute)


def _implementation(method: str, preset: str | None, fallback: str) -> str:
    parameters = get_corrector(method).from_options(preset).parameters()
    return f"{method_implementation(method, fallback)} {json.dumps(parameters, sort_keys=True, default=str)}"


def prepare(plan: CorrectionPlan) -> None:
    """Make the derivative data sets' folders and descriptions, and begin the status table."""
    for spec in plan.settings.methods:
        method = get_corrector(spec.method)
        preset = spec.preset or next(iter(method.presets))
        bids.prepare_dataset(
            plan.settings.out_dir / spec.label,
            plan.settings.bids_dir,
            str(spec),
            f"{method.summary} (preset {preset})",
            overwrite=plan.settings.overwrite,
        )
    prepare_judge(plan.settings.out_dir, plan.settings.bids_dir, overwrite=plan.settings.overwrite)
    status.begin(plan)
    plan.hashes.keep()


def scan_task(
    plan: CorrectionPlan, job: Job, specs: tuple[MethodSpec, ...], run_id: str, *, again: bool = False
) -> workflow.Task:
    """The :class:`CorrectScan` of one scan by some methods; ``again`` makes it another piece of work."""
    settings = plan.settings
    work = {
        "job": job.as_dict(),
        "content": plan.contents[job.relative],
        "source_sha256": plan.sources[job.relative],
        "out_dir": str(settings.out_dir),
        "skull_strip": settings.skull_strip,
        "segmentation": settings.segmentation,
        "options": {name: getattr(settings.options, name) for name in SHARED},
        "overwrite": settings.overwrite,
        "settings": {spec.label: plan.works[job.relative, spec.label] for spec in specs},
        "run_id": run_id,
    } | ({"again": uuid.uuid4().hex} if again else {})
    given = {GIVEN[kind]: File(path) for kind, path in job.given.items()}
    if settings.skull_strip != "given":
        given.pop("given_mask", None)
    if settings.segmentation != "given":
        given = {name: file for name, file in given.items() if name == "given_mask"}
    return CorrectScan(
        in_file=File(job.source),
        work=json.dumps(work, sort_keys=True),
        specs=[str(spec) for spec in specs],
        keys=[plan.keys[job.relative, spec.label] for spec in specs],
        **given,
    )
