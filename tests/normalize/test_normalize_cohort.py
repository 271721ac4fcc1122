"""A cohort normalized: a derivative data set of its own, gone on with, and the sites before and after in the report."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_phantom

from biascorr_pydra import bids
from biascorr_pydra.cohort import status
from biascorr_pydra.errors import BIDSError, InvalidParameterError, OutputError
from biascorr_pydra.images import files, nifti
from biascorr_pydra.interfaces.cli.main import cli
from biascorr_pydra.normalize import cohort, normalize_cohort
from biascorr_pydra.report import write_report

SITES = {"A": (0.25, 0.6, 1.0), "B": (0.3, 0.9, 0.6)}  # CSF, GM, WM


def write_study(root, sites=SITES, subjects=2):
    """One data set a site: stripped heads of 2 mm whose contrast is the site's."""
    for number, (site, (csf, gm, wm)) in enumerate(sites.items()):
        (root / site).mkdir(parents=True)
        about = {"Name": site, "BIDSVersion": "1.11.0"}
        (root / site / "dataset_description.json").write_text(json.dumps(about))
        (root / site / "README").write_text("made by a test\n")
        for subject in range(subjects):
            phantom = make_phantom((24, 26, 22), voxel_mm=2.0, seed=10 * number + subject)
            data = np.choose(phantom.dseg, [0, gm, wm, csf]) * 500.0 * (1 + number)
            data += phantom.brain * np.random.default_rng(subject).normal(0, 10, data.shape)
            name = f"sub-{site}{subject}"
            (root / site / name / "anat").mkdir(parents=True)
            nifti.save(phantom.image(np.abs(data)), root / site / name / "anat" / f"{name}_T1w.nii.gz")
    return root


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("study"))
    out = tmp_path_factory.mktemp("out")
    outcome = normalize_cohort(study, out, skull_strip="none", speed="fast", device="cpu")
    return study, out, outcome


def test_each_site_gets_a_derivative_data_set(done):
    study, out, outcome = done
    assert (outcome.done, outcome.failed) == (4, [])
    folder = out / "A" / bids.NORMALIZED / "sub-A0" / "anat"
    assert sorted(p.name for p in folder.glob("*.nii.gz")) == [
        "sub-A0_desc-normalized_T1w.nii.gz",
        "sub-A0_dseg.nii.gz",
        *[f"sub-A0_label-{tissue}_probseg.nii.gz" for tissue in ("CSF", "GM", "WM")],
    ]
    about = json.loads((folder / "sub-A0_desc-normalized_T1w.json").read_text())
    assert about["Sources"] == ["bids:raw:sub-A0/anat/sub-A0_T1w.nii.gz"] and about["SkullStripped"] is True
    source = study / "A" / "sub-A0" / "anat" / "sub-A0_T1w.nii.gz"
    assert about["SourceSHA256"] == files.sha256(source) and len(about["Method"]["weights_sha256"]) == 64
    described = json.loads((out / "A" / bids.NORMALIZED / "dataset_description.json").read_text())
    assert described["Name"].startswith("Normalization by deepnormalize") and described["DatasetType"] == "derivative"
    assert not list(out.glob("**/*desc-preproc*"))  # a normalized image is never called a corrected one


def test_the_validator_accepts_it(done):
    _, out, _ = done
    validator = shutil.which("bids-validator-deno") or Path(sys.executable).parent / "bids-validator-deno"
    validated = subprocess.run(
        [validator, str(out / "A" / bids.NORMALIZED), "--json"],
        capture_output=True,
        text=True,
    )
    issues = json.loads(validated.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_the_report_compares_the_sites_before_and_after(done):
    _, out, _ = done
    write_report(out, scan_pages=False)
    with open(out / "reports" / "site_differences.tsv") as stream:
        rows = {row["site"]: row for row in csv.DictReader(stream, delimiter="\t")}
    assert set(rows) == {"A", "B", "all sites"}
    whole = rows["all sites"]
    assert whole["method"] == bids.NORMALIZED and whole["n_scans"] == "4"
    assert float(whole["jsd_after"]) > 0 and 0.1 < float(whole["jsd_before"]) < np.log(2)
    assert bids.NORMALIZED in (out / "report.html").read_text()
    with open(out / "reports" / "problems.tsv") as stream:
        assert list(csv.DictReader(stream, delimiter="\t")) == []


def test_it_goes_on_with_what_is_not_done_and_says_what_failed(tmp_path):
    study = write_study(tmp_path / "study", {"A": SITES["A"]}, subjects=2) / "A"
    scans = [study / f"sub-A{i}" / "anat" / f"sub-A{i}_T1w.nii.gz" for i in (0, 1)]
    good = scans[1].read_bytes()
    scans[1].write_bytes(b"not gzip")
    arguments = ["normalize-cohort", str(study), str(tmp_path / "out"), "--skull-strip", "none", "--speed", "fast"]
    first = CliRunner().invoke(cli, arguments)
    assert first.exit_code == 1 and "1 normalized, 1 failed" in first.output and "gzip" in first.output
    made = tmp_path / "out" / bids.NORMALIZED / "sub-A0" / "anat" / "sub-A0_desc-normalized_T1w.nii.gz"
    before = made.stat().st_mtime_ns
    scans[1].write_bytes(good)
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 0 and "2 normalized, 0 failed" in again.output and "cached" in again.output
    assert made.stat().st_mtime_ns == before
    made.unlink()  # whatever is no longer there is made again
    third = CliRunner().invoke(cli, arguments)
    assert "cached" in third.output and made.exists()


def test_wrong_use_is_refused(tmp_path):
    study = write_study(tmp_path / "study", {"A": SITES["A"]}, subjects=1) / "A"
    with pytest.raises(InvalidParameterError, match="skull"):
        normalize_cohort(study, tmp_path / "out", skull_strip="scissors")
    for out in (study, study / "results"):
        before = sorted(study.rglob("*"))
        with pytest.raises(OutputError, match=r"input data set|under derivatives"):
            normalize_cohort(study, out, skull_strip="none")
        assert sorted(study.rglob("*")) == before  # no lock, no run.json in the raw data
    assert nib.load(study / "sub-A0" / "anat" / "sub-A0_T1w.nii.gz").shape == (24, 26, 22)


QUICK = {"skull_strip": "none", "speed": "fast", "device": "cpu"}


def rows_of(folder):
    lines = (folder / "status.tsv").read_text().splitlines()
    return {line.split("\t")[0]: line.split("\t")[2:] for line in lines[1:]}


def test_whatever_a_scan_raises_is_its_row_and_the_table_is_written_as_the_run_goes(tmp_path, monkeypatch):
    study = write_study(tmp_path / "study", {"A": SITES["A"]}, subjects=3) / "A"
    out, scans = tmp_path / "out", [f"sub-A{i}/anat/sub-A{i}_T1w.nii.gz" for i in range(3)]

    def fails(in_file, *arguments, **options):
        if "sub-A0" in str(in_file):
            raise torch.OutOfMemoryError("CUDA out of\nmemory")
        assert rows_of(out)[scans[0]] == ["failed", "OutOfMemoryError: CUDA out of memory"]
        if "sub-A1" in str(in_file):
            raise KeyError("no such tissue")
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort, "normalize_file", fails)
    with pytest.raises(KeyboardInterrupt):
        normalize_cohort(study, out, **QUICK)
    assert [rows_of(out)[scan][0] for scan in scans] == ["failed", "failed", "waiting"]
    assert [row.state for row in status.now(out)[0]] == ["failed", "failed", "interrupted"]
    monkeypatch.undo()
    assert [row.state for row in normalize_cohort(study, out, **QUICK).rows[""]] == ["done"] * 3
    assert {row.state for row in status.now(out)[0]} == {"done"}


def test_twins_absent_content_and_images_that_are_skipped_are_rows(tmp_path):
    study = write_study(tmp_path / "study", {"A": SITES["A"]}, subjects=3) / "A"
    scans = [study / f"sub-A{i}" / "anat" / f"sub-A{i}_T1w.nii.gz" for i in range(3)]
    nifti.save(nifti.load(scans[0]), scans[0].with_suffix(""))
    scans[1].rename(scans[1].with_name("sub-A1_part-phase_T1w.nii.gz"))
    scans[2].unlink()
    scans[2].symlink_to(tmp_path / "annex" / "SHA256-x")
    ended = []
    outcome = normalize_cohort(study, tmp_path / "out", progress=lambda name, row: ended.append(row), **QUICK)
    rows = {row.scan.rsplit("/")[-1]: row for row in outcome.rows[""]}
    assert {name: row.state for name, row in rows.items()} == {
        "sub-A0_T1w.nii": "failed",
        "sub-A0_T1w.nii.gz": "failed",
        "sub-A1_part-phase_T1w.nii.gz": "skipped",
        "sub-A2_T1w.nii.gz": "failed",
    }
    assert all("the same scan to BIDS. Remove one." in rows[f"sub-A0_T1w.nii{end}"].reason for end in ("", ".gz"))
    assert "datalad get" in rows["sub-A2_T1w.nii.gz"].reason
    assert rows["sub-A1_part-phase_T1w.nii.gz"].reason == "part-phase: its values are not intensities"
    assert sorted(ended) == sorted(outcome.rows[""]) and len(rows_of(tmp_path / "out")) == 4
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_of_a_study_the_data_sets_that_have_what_was_asked_for_are_normalized(tmp_path):
    study = write_study(tmp_path / "study", subjects=1)
    (study / "C" / "sub-C0").mkdir(parents=True)  # as INDI's folders of sidecars: no image
    outcome = normalize_cohort(study, tmp_path / "out", participants=["sub-B0"], **QUICK)
    assert list(outcome.rows) == ["B"] and outcome.done == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".biascorr") == ["B", "study.json"]
    (study / "B" / "sub-B0" / "anat" / "sub-B0_T1w.nii.gz").write_bytes(b"not gzip")
    outcome = normalize_cohort(study, tmp_path / "out", **QUICK)
    assert {name: [row.state for row in rows] for name, rows in outcome.rows.items()} == {
        "A": ["done"],
        "B": ["failed"],
    }
    with pytest.raises(BIDSError, match="no such participant in the study"):
        normalize_cohort(study, tmp_path / "out", participants=["A0", "Z"], **QUICK)


def test_files_of_others_are_not_replaced_and_a_mask_of_an_earlier_choice_goes(tmp_path):
    study = write_study(tmp_path / "study", {"A": SITES["A"]}, subjects=1) / "A"
    truth, anat = tmp_path / "truth", Path("sub-A0") / "anat"
    (truth / anat).mkdir(parents=True)
    about = {"Name": "masks", "BIDSVersion": "1.11.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "hand"}]}
    (truth / "dataset_description.json").write_text(json.dumps(about))
    scan = nifti.load(study / anat / "sub-A0_T1w.nii.gz")
    brain = nifti.save_like(scan.get_fdata() > 0, scan, dtype=np.uint8)
    nifti.save(brain, truth / anat / "sub-A0_desc-brain_mask.nii.gz")
    out = tmp_path / "out"
    made = out / bids.NORMALIZED / anat
    with_mask = {**QUICK, "skull_strip": "given", "derivatives": truth}
    assert normalize_cohort(study, out, **with_mask).done == 1
    assert json.loads((made / "sub-A0_desc-normalized_T1w.json").read_text())["MaskMethod"] == "given"
    assert (made / "sub-A0_desc-brain_mask.nii.gz").exists()
    assert normalize_cohort(study, out, **QUICK).done == 1
    assert not list(made.glob("*mask*"))
    (made / "sub-A0_dseg.json").unlink()  # nobody's now
    (made / "sub-A0_dseg.nii.gz").write_bytes(b"by hand")
    outcome = normalize_cohort(study, out, **with_mask)
    assert "was not written by biascorr_pydra" in outcome.failed[0].reason
    assert (made / "sub-A0_dseg.nii.gz").read_bytes() == b"by hand"
    assert normalize_cohort(study, out, overwrite=True, **with_mask).done == 1
