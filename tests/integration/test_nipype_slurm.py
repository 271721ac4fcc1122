"""Swapped N4 nodes on a real Slurm, through Nipype's own plugin: run with `pytest -m slurm`, with the extra fmriprep.

A Slurm with a GPU GRES must be running (one node with pretend GPUs will do): nothing here computes on a GPU.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

from biascorr_pydra import correct_file
from biascorr_pydra.images import nifti

os.environ["NIPYPE_NO_ET"] = "1"
pytestmark = pytest.mark.slurm


def run(*command):
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(autouse=True)
def slurm(monkeypatch):
    try:
        listing = run("sinfo", "--noheader", "--Format=gres,state")
    except FileNotFoundError:
        pytest.fail("this test needs Slurm: sinfo is not installed")
    if listing.returncode or "gpu" not in listing.stdout:
        pytest.fail(f"this test needs a running Slurm with a GPU GRES; sinfo says: {listing.stdout}{listing.stderr}")
    monkeypatch.setenv("LOGNAME", "tester")  # Nipype names its jobs with it


@pytest.fixture
def t1w(phantom, tmp_path):
    path = tmp_path / "sub-01_T1w.nii.gz"
    nifti.save(phantom.image(), path)
    return path


def requested(folder: Path) -> list[str]:
    """What accounting says was asked for, of every job that ran below a folder."""
    for _ in range(20):  # accounting lags behind
        listed = run(
            *("sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-1hour"),
            "--format=JobID,ReqTRES,WorkDir",
        )
        ours = [line for line in listed.stdout.splitlines() if str(folder) in line]
        if ours:
            return ours
        time.sleep(1)
    return []


def test_swapped_nodes_run_as_jobs_and_give_the_same_bytes(tmp_path, t1w, monkeypatch):
    from niworkflows.anat.ants import init_n4_only_wf

    from biascorr_pydra.interfaces.nipype.swap import use_biascorr

    monkeypatch.chdir(tmp_path)
    workflow = init_n4_only_wf(omp_nthreads=2, atropos_refine=False)
    assert [node.name for node in use_biascorr(workflow)] == ["inu_n4"]
    workflow.base_dir = str(tmp_path / "work")
    workflow.config["execution"] = {"remove_unnecessary_outputs": "false", "poll_sleep_duration": "1"}
    workflow.inputs.inputnode.in_files = [str(t1w)] * 2
    graph = workflow.run("SLURM")
    outputs = next(node for node in graph.nodes() if node.name == "inu_n4").result.outputs
    correct_file(t1w, tmp_path / "expected.nii.gz", method="n4", preset="niworkflows-final")
    assert [Path(file).read_bytes() for file in outputs.output_image] == [
        (tmp_path / "expected.nii.gz").read_bytes()
    ] * 2
    jobs = requested(tmp_path)
    assert sum("mem=1331M" in job and "cpu=1" in job for job in jobs) >= 2, jobs


def test_a_gpu_node_asks_for_gres_and_its_error_reaches_the_crash_file(tmp_path, t1w, monkeypatch):
    """Without a GPU the node fails, as it must; that it asked for one is in Slurm's books."""
    import torch
    from niworkflows.anat.ants import init_n4_only_wf

    from biascorr_pydra.interfaces.nipype.swap import use_biascorr

    assert not torch.cuda.is_available(), "written for Slurm's pretend GPUs"
    monkeypatch.chdir(tmp_path)
    workflow = init_n4_only_wf(omp_nthreads=2, atropos_refine=False)
    use_biascorr(workflow, "ubc", use_gpu=True)
    workflow.base_dir = str(tmp_path / "work")
    workflow.config["execution"] = {"crashdump_dir": str(tmp_path / "crash"), "crashfile_format": "txt"}
    workflow.inputs.inputnode.in_files = [str(t1w)]
    with pytest.raises(RuntimeError):
        workflow.run("SLURM")
    crashes = [file.read_text() for file in (tmp_path / "crash").glob("crash*inu_n4*.txt")]
    assert any("InvalidParameterError: no CUDA device is available" in text for text in crashes)
    assert any("gres/gpu=1" in job for job in requested(tmp_path))
