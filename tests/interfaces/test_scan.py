"""The workflow of one scan: what it needs, and how declared outputs travel through it."""

import json
from types import SimpleNamespace

import pytest
from fileformats.generic import File
from pydra.utils import get_fields
from tiny_cohort import implementation, settings

from biascorr_pydra.bids import CORRECTED
from biascorr_pydra.cohort import plan_correction
from biascorr_pydra.correction.options import CorrectionOptions
from biascorr_pydra.interfaces.pydra import needs, scan
from biascorr_pydra.interfaces.pydra.cohort import scan_task
from biascorr_pydra.interfaces.pydra.scan import CorrectByMethod, JudgeScan, PublishScan
from biascorr_pydra.interfaces.pydra.tasks import SegmentTissue
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.spec import MethodSpec
from biascorr_pydra.resources import declared

GREEDY_GB = 7.0


@pytest.fixture
def task_for(tiny, tmp_path):
    def make(*methods, **choices):
        choices = {"skull_strip": "none", "segmentation": "none", **choices}
        plan = plan_correction(
            settings(tiny, tmp_path / "out", methods=tuple(map(MethodSpec.parse, methods)), **choices), implementation
        )
        job, specs = plan.tasks[0]
        return scan_task(plan, job, specs, "run")

    return make


def memory(task):
    return declared(task).mem_gb


def test_a_scan_needs_as_much_memory_as_its_greediest_method(task_for, monkeypatch):
    before = memory(task_for("n4"))
    monkeypatch.setattr(get_corrector("ubc"), "memory_gb", GREEDY_GB)
    assert memory(task_for("n4")) == before < GREEDY_GB
    assert memory(task_for("n4", "ubc")) > GREEDY_GB
    assert memory(task_for("ubc")) > GREEDY_GB
    assert memory(task_for("n4", options=CorrectionOptions(fallback="ubc"))) > GREEDY_GB


def test_only_the_methods_asked_for_count(task_for, monkeypatch):
    monkeypatch.setattr(get_corrector("n4"), "memory_gb", GREEDY_GB)
    assert memory(task_for("ubc", "deepem", skull_strip="template", segmentation="atropos")) < GREEDY_GB


def test_mask_and_segmentation_count(task_for):
    task = task_for("n4", skull_strip="deepbet", segmentation="deepnormalize")
    brain = needs.for_brain(SimpleNamespace(in_file=task.in_file, method="deepbet", suffix="T1w", device="cpu"))
    tissue = needs.for_tissue(SimpleNamespace(in_file=task.in_file, method="deepnormalize", device="cpu"))
    assert memory(task) == max(brain.mem_gb, tissue.mem_gb) > memory(task_for("n4"))


def test_the_runs_options_travel_with_the_scan(task_for):
    options = {"device": "cpu", "seed": 7, "gate": False, "fallback": "ants-n4"}
    assert json.loads(task_for("n4", options=CorrectionOptions(**options)).work)["options"] == options


def test_on_a_gpu_the_steps_are_placed_one_by_one(task_for):
    assert declared(task_for("n4", options=CorrectionOptions(device="cuda"))) is None


@pytest.mark.parametrize(
    ("segmentation", "device", "gpus"),
    [("deepnormalize", "cuda", 1), ("deepnormalize", "cpu", 0), ("atropos", "cuda", 0)],
)
def test_tissues_are_segmented_on_the_runs_device_and_ask_for_a_gpu_where_they_run_on_one(
    task_for, segmentation, device, gpus
):
    task = task_for("n4", skull_strip="template", segmentation=segmentation, options=CorrectionOptions(device=device))
    by_method = CorrectByMethod(in_file=task.in_file, work=task.work, spec="n4", key="key", mask=task.in_file)
    tissue = next(node for node in by_method.construct().nodes if node.name == "tissue")
    assert tissue.inputs.device == device
    step = SegmentTissue(in_file=task.in_file, method=segmentation, device=device)
    assert declared(step).gpus == gpus


def test_every_declared_image_and_record_is_an_input_of_what_publishes_it():
    published = {field.name for field in get_fields(PublishScan)}
    shared = {field.name for field in get_fields(CorrectByMethod)}
    for image in CORRECTED.images:
        assert image.kind in published and f"{image.step}_record" in published
        assert (image.kind in shared) is (image.step == "brain")


def test_a_scan_that_changed_during_the_run_is_not_published(task_for, tmp_path, phantom_file):
    task = task_for("n4")
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"in_sha256": "of other bytes"}))
    publish = PublishScan(
        work=task.work,
        spec="n4",
        key="key",
        segmentation="none",
        correction_record=File(record),
        corrected=File(phantom_file),
    )
    with pytest.raises(Exception, match="changed during the run"):
        publish(worker="debug", cache_root=tmp_path / "cache")


@pytest.mark.parametrize("judge", [lambda *args, **options: None, lambda *args, **options: [][0]])
def test_where_there_is_no_record_of_the_judge_the_step_goes_on(task_for, tmp_path, monkeypatch, judge):
    monkeypatch.setattr(scan, "judge_scan", judge)
    task = task_for("n4")
    step = JudgeScan(in_file=task.in_file, work=task.work, metrics_files=[])
    assert step(worker="debug", cache_root=tmp_path / "cache").judge_file is None
