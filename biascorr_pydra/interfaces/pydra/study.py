"""A multi-site study as one workflow: :class:`CorrectBids` for each of its data sets, then the evaluation over all.

A study in INDI's layout is several BIDS data sets. Each is corrected into ``OUT/<its folder>`` exactly as
``correct_bids.py`` would do it, so that names stay standard, a re-run computes only what is missing, and one data set
that cannot be used stops no other. A study that is one data set is corrected into ``OUT``. Which site a scan belongs to
is a matter of the evaluation only (:mod:`biascorr_pydra.report.study.evaluation`), in ``OUT/evaluation``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydra.compose import python, workflow

from biascorr_pydra import bids, report
from biascorr_pydra.bids import Phenotypes, SiteProblem, SiteRoot
from biascorr_pydra.cohort import SHARED, CorrectionPlan
from biascorr_pydra.correction.options import DEFAULTS, CorrectionOptions
from biascorr_pydra.errors import BIDSError, OutputError, OutputExistsError
from biascorr_pydra.methods import DEFAULT_METHOD, REFERENCE_METHOD
from biascorr_pydra.methods.spec import MethodSpec

from .cohort import CorrectBids, options_of, plan_of, require_absolute, settings_of

__all__ = ["DEFAULT_METHODS", "EvaluateAbide", "Study", "StudySettings", "begin", "study_of", "study_settings"]

DEFAULT_METHODS = (DEFAULT_METHOD, REFERENCE_METHOD, "ants-n4")
FEW = 3  # reasons told where no data set can be used


@dataclass(frozen=True)
class StudySettings:
    """The choices of one run over a study; the inputs of :class:`EvaluateAbide`, hashable."""

    abide_dir: Path
    out_dir: Path
    phenotypic: Path | None
    methods: tuple[str, ...]
    participants: tuple[str, ...]
    suffix: str
    skull_strip: str
    segmentation: str
    derivatives: Path | None
    options: CorrectionOptions
    overwrite: bool
    scan_pages: bool
    recompute: bool
    run_id: str


@dataclass(frozen=True)
class Part:
    """One data set of a study: the task that corrects it, and its plan."""

    root: SiteRoot
    task: workflow.Task
    plan: CorrectionPlan


@dataclass(frozen=True)
class Study:
    """What a run over a study has to do.

    Attributes
    ----------
    settings : StudySettings
    parts : tuple of Part
        The data sets that can be worked on.
    unusable : dict
        Name of each data set that cannot be indexed or written -> why. Data sets without scans are in the design.
    design : dict
        For :func:`biascorr_pydra.report.write_design`.
    """

    settings: StudySettings
    parts: tuple[Part, ...]
    unusable: dict[str, str]
    design: dict


@lru_cache(maxsize=4)
def study_of(settings: StudySettings) -> Study:
    """Find the data sets, plan each, and give each scan its site. Touches nothing; made once per process and run.

    Raises
    ------
    BiasCorrError
        An option or the phenotypic table cannot be used, or no data set can.
    """
    roots = bids.find_site_roots(settings.abide_dir)
    if settings.out_dir.resolve() in {settings.abide_dir.resolve(), *(root.path.resolve() for root in roots)}:
        advice = "Give another --out-dir."
        raise OutputError("the output folder is the input's", file=settings.out_dir, next_step=advice)
    report.check_evaluation(settings.out_dir, overwrite=settings.overwrite)
    phenotypes = bids.read_phenotypic(settings.phenotypic) if settings.phenotypic else None
    labels = bids.participants_by_root(roots, settings.participants, settings.abide_dir)
    parts: list[Part] = []
    unusable: dict[SiteRoot, str] = {}  # with the reason
    empty: list[SiteRoot] = []  # without scans
    for root in roots:
        if settings.participants and not labels[root]:
            continue
        if not root.has(settings.suffix):  # as INDI's folder of sidecars
            empty.append(root)
            continue
        task = _task(settings, root, labels[root])
        chosen = settings_of(task)  # an option that is wrong is so for every data set, and ends the run
        try:
            parts.append(Part(root, task, plan_of(chosen, settings.recompute, settings.run_id)))
        except (BIDSError, OutputError, OutputExistsError) as error:
            unusable[root] = error.message
    if not parts:
        why = " ".join(list(unusable.values())[:FEW]) or f"no image of {settings.suffix}"
        raise BIDSError("no data set of the study can be used", file=settings.abide_dir, value=why)
    reasons = {root.name: why for root, why in unusable.items()}
    return Study(settings, tuple(parts), reasons, _design(settings, parts, unusable, empty, phenotypes))


def _task(settings: StudySettings, root: SiteRoot, labels: list[str]) -> workflow.Task:
    derivatives = settings.derivatives
    return CorrectBids(
        bids_dir=root.path.absolute(),
        out_dir=settings.out_dir / root.name,
        method=list(settings.methods),
        participant_label=labels or None,
        suffix=[settings.suffix],
        skull_strip=settings.skull_strip,
        segmentation=settings.segmentation,
        derivatives=derivatives and derivatives / root.name,
        overwrite=settings.overwrite,
        allow_undescribed=True,
        scan_pages=settings.scan_pages,
        recompute=settings.recompute,
        run_id=settings.run_id,
        **{name: getattr(settings.options, name) for name in SHARED},
    )


def _design(
    settings: StudySettings,
    parts: list[Part],
    unusable: dict[SiteRoot, str],
    empty: list[SiteRoot],
    phenotypes: Phenotypes | None,
) -> dict:
    jobs = {part.root: part.plan.jobs for part in parts} | dict.fromkeys(empty, ())
    scans, problems = bids.assign_sites(jobs, phenotypes, aside=unusable, everyone=not settings.participants)
    left_out = {root.name: f"it has no image of {settings.suffix}" for root in empty}
    left_out |= {root.name: why for root, why in unusable.items()}
    if not parts[0].root.name:
        inside = "a data set inside the data set; point to it to have it evaluated"
        left_out |= dict.fromkeys(bids.inner_data_sets(parts[0].root), inside)
    first = [SiteProblem("data set left out", name or ".", why) for name, why in left_out.items()]
    text = "it has no dataset_description.json; taken as a BIDS data set all the same"
    first += [SiteProblem("no description", part.root.name or ".", text) for part in parts if not part.root.described]
    return {
        "study": settings.abide_dir.name,
        "methods": [MethodSpec.parse(method).label for method in settings.methods],
        "suffix": settings.suffix,
        "phenotypic": settings.phenotypic and settings.phenotypic.name,
        "scans": [
            {
                "folder": scan.folder,
                "scan": scan.scan,
                "participant_id": scan.participant_id,
                "site": scan.site,
                "source": scan.source,
            }
            for scan in scans
        ],
        "problems": [list(problem) for problem in [*first, *problems]],
    }


def begin(study: Study) -> None:
    """Write the study's design, by which its evaluation finds everything."""
    bids.make_folder(report.EvaluationPaths.inside(study.settings.out_dir).folder)
    report.write_design(study.settings.out_dir, study.design)


@python.define(outputs=["summary_file"])
def WriteEvaluation(out_dir: str, run_id: str, reports: list | None = None) -> str:  # noqa: N802
    """Write the tables and the summary of a study.

    Parameters
    ----------
    out_dir : str
        the output folder
    run_id : str
        changes with every run, so that the evaluation follows the files
    reports : list
        the data sets' reports, to wait for

    Returns
    -------
    summary_file : str
        the summary
    """
    from biascorr_pydra.report.study.write import write_evaluation

    return str(write_evaluation(Path(out_dir)).html)


@workflow.define(outputs=["summary_file"])
def EvaluateAbide(  # noqa: N802
    abide_dir: Path,
    out_dir: Path,
    phenotypic: Path | None = None,
    method: list[str] | None = None,
    participant_label: list[str] | None = None,
    suffix: str = "T1w",
    skull_strip: str = "auto",
    segmentation: str = "atropos",
    derivatives: Path | None = None,
    device: str = DEFAULTS.device,
    seed: int = DEFAULTS.seed,
    overwrite: bool = False,
    gate: bool = DEFAULTS.gate,
    fallback: str = DEFAULTS.fallback,
    scan_pages: bool = True,
    recompute: bool = False,
    run_id: str | None = None,
) -> str:
    """Correct a multi-site study such as ABIDE, and compare CJV, CV and contrast before and after, by site.

    Parameters
    ----------
    abide_dir : Path
        the study: a folder with one BIDS data set a site, as INDI has it, or one BIDS data set
    out_dir : Path
        where the corrected data sets and the folder evaluation go
    phenotypic : Path
        table of sites, such as Phenotypic_V1_0b.csv (SITE_ID, SUB_ID); overrides participants.tsv and folder names
    method : list
        correction method, name or name:preset, repeatable; see `biascorr methods` [default: deepem, n4, ants-n4]
    participant_label : list
        only these participants, with or without sub-, repeatable
    suffix : str
        the contrast
    skull_strip : str
        brain mask: auto (deepbet for T1w, template for the rest), deepbet, template, given or none
    segmentation : str
        tissues of each corrected image: atropos, kmeans, deepnormalize, given or none
    derivatives : Path
        masks and segmentations for `given`, laid out as the study: one derivative data set, or one a site folder
    device : str
        auto, cpu or cuda
    seed : int
        for methods that draw random numbers
    overwrite : bool
        also replace files in the output folder that this package did not write
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

    Returns
    -------
    summary_file : str
        path of evaluation/summary.html
    """
    task = EvaluateAbide(**{**locals(), "run_id": run_id or uuid.uuid4().hex})  # at this point, the inputs alone
    require_absolute(abide_dir=abide_dir, out_dir=out_dir, phenotypic=phenotypic, derivatives=derivatives)
    study = study_of(study_settings(task))
    begin(study)
    tasks = [part.task for part in study.parts]
    own = ("bids_dir", "out_dir", "participant_label", "derivatives")
    alike = (*SHARED, "method", "suffix", "skull_strip", "segmentation", "overwrite", "allow_undescribed", "scan_pages")
    data_sets = CorrectBids(**{name: getattr(tasks[0], name) for name in (*alike, "recompute", "run_id")})
    data_sets = data_sets.split(own, **{name: [getattr(task, name) for task in tasks] for name in own})
    corrected = workflow.add(data_sets.combine("bids_dir"), name="data_set")
    written = workflow.add(
        WriteEvaluation(
            out_dir=str(study.settings.out_dir), run_id=study.settings.run_id, reports=corrected.report_file
        ),
        name="evaluation",
    )
    return written.summary_file


def study_settings(task: workflow.Task) -> StudySettings:
    """The run's choices, hashable; ``task`` is an :class:`EvaluateAbide`."""
    return StudySettings(
        abide_dir=Path(task.abide_dir),
        out_dir=Path(task.out_dir),
        phenotypic=Path(task.phenotypic) if task.phenotypic else None,
        methods=tuple(task.method or DEFAULT_METHODS),
        participants=tuple(task.participant_label or ()),
        suffix=task.suffix,
        skull_strip=task.skull_strip,
        segmentation=task.segmentation,
        derivatives=Path(task.derivatives) if task.derivatives else None,
        options=options_of(task),
        overwrite=task.overwrite,
        scan_pages=task.scan_pages,
        recompute=task.recompute,
        run_id=task.run_id,
    )
