"""workflows/evaluate_abide.py on small studies of three sites, in both layouts, with what goes wrong in real ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_phantom
from forked import PYDRA, program

from biascorr_pydra.images import nifti
from biascorr_pydra.metrics import cjv

WORKFLOW = Path(__file__).parents[2] / "workflows" / "evaluate_abide.py"
#: label -> (folder of INDI's layout, site); KKI has one scan
PEOPLE = {
    "0090001": ("Caltech", "CALTECH"),
    "0090002": ("Caltech", "CALTECH"),
    "0090003": ("MaxMun_a", "MAX_MUN"),
    "0090004": ("MaxMun_b", "MAX_MUN"),
    "0090005": ("KKI", "KKI"),
}
TWO_METHODS = ("--method", "n4", "--method", "n4:antspy")


@pytest.fixture(scope="module")
def phantoms():
    return {label: make_phantom((32, 36, 30), 6.0, seed=seed) for seed, label in enumerate(PEOPLE)}


def write(phantoms, study: Path, truth: Path, folder_of) -> None:
    for label, phantom in phantoms.items():
        for root, kind in ((study, "raw"), (truth, "derivative")):
            anat = root / folder_of(label) / f"sub-{label}" / "anat"
            anat.mkdir(parents=True)
            about = {"Name": f"{kind} {folder_of(label)}", "BIDSVersion": "1.11.0", "DatasetType": kind}
            about |= {"GeneratedBy": [{"Name": "test"}]} if kind == "derivative" else {}
            (root / folder_of(label) / "dataset_description.json").write_text(json.dumps(about))
        nifti.save(phantom.image(), study / folder_of(label) / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz")
        nifti.save(phantom.image(phantom.brain, np.uint8), anat / f"sub-{label}_desc-brain_mask.nii.gz")
        nifti.save(phantom.image(phantom.dseg, np.uint8), anat / f"sub-{label}_dseg.nii.gz")


@pytest.fixture
def indi(tmp_path, phantoms):
    """INDI's layout: a data set a folder."""
    study = tmp_path / "RawDataBIDS"
    write(phantoms, study, tmp_path / "truth", lambda label: PEOPLE[label][0])
    for folder in {folder for folder, _ in PEOPLE.values()}:
        labels = [label for label, (other, _) in PEOPLE.items() if other == folder]
        (study / folder / "participants.tsv").write_text("".join(["participant_id\n", *(f"sub-{x}\n" for x in labels)]))
    return study


@pytest.fixture
def single(tmp_path, phantoms):
    """One data set, the sites in participants.tsv."""
    study = tmp_path / "study"
    write(phantoms, study, tmp_path / "truth", lambda label: ".")
    rows = "".join(f"sub-{label}\t{site}\n" for label, (_, site) in PEOPLE.items())
    (study / "participants.tsv").write_text(f"participant_id\tSITE_ID\n{rows}")
    return study


def phenotypic(study: Path, rows: dict[str, str]) -> tuple[str, str]:
    file = study.parent / "Phenotypic_V1_0b.csv"
    file.write_text("SITE_ID,SUB_ID,DX_GROUP\n" + "".join(f"{site},{label},-9999\n" for label, site in rows.items()))
    return "--phenotypic", str(file)


def run(study: Path, *arguments, worker="debug"):
    inputs = ["--abide-dir", str(study), "--out-dir", str(study.parent / "out"), "--worker", worker]
    inputs += ["--skull-strip", "given", "--segmentation", "given", "--derivatives", str(study.parent / "truth")]
    inputs += [] if "--method" in arguments else ["--method", "n4"]
    inputs += ["--no-scan-pages"]
    return program(PYDRA, "run", WORKFLOW, *inputs, *arguments, cwd=study.parent)


def table(study: Path, name: str) -> pd.DataFrame:
    file = study.parent / "out" / "evaluation" / f"{name}.tsv"
    written = pd.read_csv(file, sep="\t", na_values="n/a", keep_default_na=False)
    assert list(written.columns) == list(json.loads(file.with_suffix(".json").read_text()))
    return written


def test_indis_layout_from_images_to_tables(indi, phantoms):
    csv = phenotypic(indi, {label.lstrip("0"): site for label, (_, site) in PEOPLE.items()})
    done = run(indi, *csv, *TWO_METHODS)
    assert done.returncode == 0, done.stderr
    out = indi.parent / "out"
    assert f"Evaluation: {out}/evaluation/summary.html" in done.stdout and "problems (" not in done.stdout
    # Each data set's outputs are where correct_bids.py would put them.
    stem = "sub-0090003/anat/sub-0090003"
    for method in ("n4", "n4_antspy"):
        assert (out / "MaxMun_a" / method / f"{stem}_desc-preproc_T1w.nii.gz").is_file()
        description = json.loads((out / "MaxMun_a" / method / "dataset_description.json").read_text())
        assert description["DatasetLinks"] == {"raw": "../../../RawDataBIDS/MaxMun_a"}
    assert (out / "MaxMun_a" / "report.html").is_file()

    scans = table(indi, "scans").set_index(["participant_id", "method"])
    assert len(scans) == 10 and set(scans["state"]) == {"done"}
    for label, phantom in phantoms.items():
        row = scans.loc[f"sub-{label}", "n4"]
        assert (row["folder"], row["site"], row["site_source"]) == (*PEOPLE[label], "phenotypic")
        expected = cjv(phantom.acquired, phantom.dseg == 1, phantom.dseg == 2)
        assert row["cjv_own_before"] == pytest.approx(expected, rel=1e-5)
        assert row["cjv_own_after"] < row["cjv_own_before"]
        assert row["cjv_after"] < row["cjv_before"] < row["cjv_own_before"]  # the judge's tissue has no borders
        bias = out / row["folder"] / f"n4/sub-{label}/anat/sub-{label}_desc-T1w_biasfield.nii.gz"
        corrected = phantom.acquired / nifti.load(bias).get_fdata()
        after = cjv(corrected, phantom.dseg == 1, phantom.dseg == 2)
        assert row["cjv_own_after"] == pytest.approx(after, rel=1e-4)

    sites = table(indi, "sites")
    assert list(sites["site"].unique()) == ["CALTECH", "KKI", "MAX_MUN"]
    row = sites.query("site == 'MAX_MUN' and metric == 'cjv' and method == 'n4' and reference == 'before'").iloc[0]
    both = [scans.loc[f"sub-{label}", "n4"] for label in ("0090003", "0090004")]
    assert row["n"] == 2 and np.isnan(row["wins"]) and row["effect_size"] == -1  # a metric alone ranks nothing
    assert row["median_change"] == pytest.approx(np.mean([one["cjv_after"] - one["cjv_before"] for one in both]))
    assert np.isnan(row["p"]) and "only 2 pairs, fewer than 6" in row["note"]
    one = sites.query("site == 'KKI' and metric == 'cjv' and method == 'n4' and reference == 'before'").iloc[0]
    assert one["n"] == 1 and np.isnan(one["p_holm"]) and "only 1 pair, fewer" in one["note"]

    overall = table(indi, "overall")
    row = overall.query("unit == 'scan' and metric == 'cjv' and method == 'n4_antspy' and reference == 'n4'").iloc[0]
    after = scans["cjv_after"].unstack("method")
    changes = after["n4_antspy"] - after["n4"]
    assert row["n"] == 5 and row["median_change"] == pytest.approx(np.median(changes))
    assert len(overall) == 2 * 4 * 3  # units, metrics, comparisons
    words = (out / "evaluation" / "summary.md").read_text()
    assert "5 scans of 5 participants at 3 sites. n4: 5 corrected. n4\\_antspy: 5 corrected." in words
    assert "3 sites with fewer than 6 scans (CALTECH, KKI, MAX\\_MUN)" in words
    assert (out / "evaluation" / "changes.png").stat().st_size > 5000


@pytest.mark.parametrize("worker", ["cf", pytest.param("debug", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_what_is_wrong_is_said_and_the_rest_goes_on(indi, phantoms, worker):
    (indi / "KKI" / "dataset_description.json").unlink()
    (indi / "Caltech/sub-0090001/anat/sub-0090001_T1w.nii.gz").write_bytes(b"")  # as one image of ABIDE was
    (indi / "Caltech" / "sub-0090009" / "func").mkdir(parents=True)  # as ten participants of ABIDE are
    (indi / "sidecards" / "sub-0090001" / "anat").mkdir(parents=True)
    description = indi / "MaxMun_a" / "dataset_description.json"
    content = description.read_text()
    description.write_text("{")
    twin = indi / "KKI/sub-0090004/anat"
    shutil.copytree(indi / "MaxMun_b/sub-0090004/anat", twin)
    shutil.copytree(indi.parent / "truth/MaxMun_b/sub-0090004", indi.parent / "truth/KKI/sub-0090004")
    csv = phenotypic(indi, {"90001": "CALTECH", "90002": "NYU", "90003": "MAX_MUN", "90005": "KKI", "90777": "YALE"})
    done = run(indi, *csv, worker=worker)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "FAILED  sub-0090001/anat/sub-0090001_T1w.nii.gz  n4" in done.stderr
    assert "LEFT OUT  MaxMun_a" in done.stderr and "not valid JSON" in done.stderr

    problems = table(indi, "problems")
    where = {kind: set(group["where"]) for kind, group in problems.groupby("kind")}
    assert where["data set left out"] == {"MaxMun_a", "sidecards"}
    assert where["no description"] == {"KKI"}
    assert where["site conflict"] == {"Caltech/sub-0090002/anat/sub-0090002_T1w.nii.gz"}
    assert where["unmatched participant"] == {"MaxMun_b/sub-0090004", "KKI/sub-0090004"}
    assert where["duplicate id"] == {"sub-0090004"}
    assert where["missing scan"] == {"participant 90009", "participant 90777"}
    broken = "Caltech/sub-0090001/anat/sub-0090001_T1w.nii.gz"
    assert where["failed"] == {f"{broken}, n4"}
    assert len(where) == 7

    scans = table(indi, "scans").set_index(["folder", "participant_id", "method"])
    failed = scans.loc["Caltech", "sub-0090001", "n4"]
    assert failed["state"] == "failed" and np.isnan(failed["cjv_after"]) and "UnreadableImageError" in failed["note"]
    assert scans.loc["Caltech", "sub-0090002", "n4"]["site"] == "NYU"
    assert (scans.drop(("Caltech", "sub-0090001"))["state"] == "done").all()
    sites = table(indi, "sites").query("metric == 'cjv' and method == 'n4' and reference == 'before'").set_index("site")
    assert (sites.loc["CALTECH", "n"], sites.loc["CALTECH", "n_undefined"]) == (0, 1)
    assert sites.loc["CALTECH", "note"].endswith("no scan has both values")
    assert sites.loc["KKI", "n"] == 2 and sites.loc["NYU", "n"] == 1
    words = (indi.parent / "out/evaluation/summary.md").read_text()
    assert "n4: 4 corrected, 1 not." in words

    nifti.save(phantoms["0090001"].image(), indi / broken)
    description.write_text(content)
    again = run(indi, *csv, worker=worker)
    assert again.returncode == 0, again.stderr
    for counts in (
        "1 done, 1 done before, 0 failed.",
        "1 done, 0 done before",
        "0 done, 2 done before",
        "0 done, 1 done",
    ):
        assert again.stdout.count(counts) == 1
    problems = table(indi, "problems")
    assert "failed" not in set(problems["kind"]) and problems["where"][0] == "sidecards"


def test_a_dry_run_of_some_participants_touches_nothing(indi):
    before = sorted(indi.parent.rglob("*"))
    done = run(indi, "--participant-label", "0090001", "--participant-label", "sub-0090004", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert sorted(indi.parent.rglob("*")) == before
    assert "== 2 scans by site" in done.stdout and "sub-0090002" not in done.stdout and "== KKI" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--participant-label", "99"), "no such participant in the study"),
        (("--method", "n4", "--method", "n4"), "each --method once"),
        (("--phenotypic", "nowhere.csv"), "not readable as a table"),
        (("--suffix", "FLAIR"), "no data set of the study can be used"),
        (("--out-dir", "RawDataBIDS"), "the output folder is the input's"),
        (("--skull-strip", "spoon"), "unknown --skull-strip"),
    ],
)
def test_wrong_use_exits_with_2_and_touches_nothing(indi, arguments, words):
    done = run(indi, *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (indi.parent / "out").exists()


def test_a_foreign_folder_costs_its_own_site_only(indi):
    mine = indi.parent / "out/KKI/n4/notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("by hand")
    done = run(indi, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "data set left out: KKI: " in done.stdout and "was not written by biascorr_pydra" in done.stdout
    assert "== 4 scans by site" in done.stdout


def test_a_foreign_evaluation_folder_is_kept(indi):
    mine = indi.parent / "out/evaluation/notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("by hand")
    done = run(indi)
    assert done.returncode == 2 and "was not written by biascorr_pydra" in done.stderr
    assert mine.read_text() == "by hand"


def test_one_data_set_with_sites_in_participants_tsv_from_python(single, monkeypatch):
    from biascorr_pydra.interfaces.pydra.study import EvaluateAbide

    truth = {"skull_strip": "given", "segmentation": "given", "derivatives": single.parent / "truth"}
    people = {"method": ["n4"], "participant_label": ["0090002", "0090003", "0090004"]}
    task = EvaluateAbide(abide_dir=single, out_dir=single.parent / "out", **truth, **people)
    outputs = task(worker="debug", cache_root=single.parent / "cache")
    assert Path(outputs.summary_file) == single.parent / "out/evaluation/summary.html"
    assert (single.parent / "out/n4/sub-0090002/anat/sub-0090002_desc-preproc_T1w.nii.gz").is_file()
    scans = table(single, "scans")
    assert scans["folder"].isna().all() and set(scans["site_source"]) == {"participants"}
    assert (scans["cjv_after"] < scans["cjv_before"]).all()
    assert table(single, "sites").groupby("site")["n"].max().to_dict() == {"CALTECH": 1, "MAX_MUN": 2}
    monkeypatch.chdir(single.parent)
    with pytest.raises(Exception, match="abide_dir must be an absolute path"):
        EvaluateAbide(abide_dir="study", out_dir="out")(worker="debug", cache_root=single.parent / "cache")
