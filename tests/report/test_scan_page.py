"""The scans' pages, made from a small cohort of written files whose numbers are known."""

import json
import re
import shutil
from concurrent.futures.process import BrokenProcessPool

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from written_cohort import AFFINE, BEFORE, SHAPE, T1W, T2W, Page, gate, write_judge, write_scan, write_status

from biascorr_pydra.images import nifti
from biascorr_pydra.report.cohort.boilerplate import boilerplate
from biascorr_pydra.report.collect import Result, collect
from biascorr_pydra.report.paths import page_name, scan_page
from biascorr_pydra.report.scan import write, write_scan_pages

EVIL = "<script>alert(1)</script>"
FOLDER = "n4/sub-01/ses-1/anat/sub-01_ses-1"

pytestmark = pytest.mark.usefixtures("small_pictures")


def made(out, scan=T1W, **options):
    write_scan_pages(collect(out), n_procs=1, **options)
    return Page(scan_page(out, scan))


# --- where pages are


def test_a_page_has_the_name_of_its_image():
    assert page_name("sub-01/ses-1/anat/sub-01_ses-1_run-2_T1w.nii.gz") == "sub-01_ses-1_run-2_T1w"
    assert page_name("sub-01/anat/sub-01_T1w.nii") == "sub-01_T1w"


def test_names_that_are_not_bids_are_safe_and_their_own():
    names = [
        page_name(scan) for scan in ("a/T1w.nii.gz", "b/T1w.nii.gz", f"sub-1/{EVIL}_T1w.nii", "sub-1/..", "x" * 999)
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{5,100}", name) for name in names)


# --- the page


def test_a_page_says_what_was_done_and_shows_it(judged_cohort):
    done = write_scan_pages(collect(judged_cohort), n_procs=1)
    assert (done.made, done.unchanged) == (2, 0)
    page = Page(scan_page(judged_cohort, T1W))
    assert "n4 ✓ acceptedThe field was accepted and divided out." in page.text
    assert "ubc ✗ rejectedThe field was rejected; the image was passed on unchanged. Reason: no support." in page.text
    assert "Judge: better: unevenness of tissue −25.0% (−27.0% to −23.0%)" in page.text
    assert "Judge: same: rejected by the gate: delivered as acquired" in page.text
    assert "CJV 0.8000 → 0.6000 −25.0%" in page.text
    assert "support of the field by the image" in page.text and "at least 0.55" in page.text
    assert "field, ubc (unchanged)" in page.text
    assert "No errors to report!" in page.text
    names = {attributes["src"] for attributes in page.images()}
    stem = "figures/sub-01_ses-1_desc-"
    wanted = {f"{stem}acquired_T1w.jpg", f"{stem}tissues_T1w.jpg"}
    wanted |= {f"{stem}{m}{kind}_T1w.jpg" for m in ("n4", "ubc") for kind in ("corrected", "biasfield")}
    assert names == wanted | {f"{stem}{m}histograms_T1w.png" for m in ("n4", "ubc")}
    assert all((judged_cohort / "reports" / name).is_file() for name in names)
    assert all(attributes["alt"].strip() for attributes in page.images())
    sizes = {Image.open(judged_cohort / "reports" / name).size for name in names if name.endswith("jpg")}
    assert len(sizes) == 1  # so that they lie over one another


def test_a_failure_has_a_page_with_its_reason(judged_cohort):
    page = made(judged_cohort, T2W)
    assert f"ubc: the correction failed: out of memory {EVIL}" in page.text
    assert "The correction failed; there is no corrected image." in page.text
    assert EVIL not in page.source


def test_pages_link_to_one_another_and_to_the_cohort(judged_cohort):
    page = made(judged_cohort)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert "../report.html" in links and "sub-02_T2w.html" in links
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for href in links:
        if href.startswith("#"):
            assert href[1:] in ids
        elif href != "../report.html":
            assert (judged_cohort / "reports" / href).is_file(), href
    labels = [attributes["for"] for tag, attributes in page.tags if tag == "label"]
    assert set(labels) <= set(ids)
    assert not [tag for tag, _ in page.tags if tag in {"link", "iframe", "object", "embed", "base", "form"}]
    elsewhere = made(judged_cohort, home=judged_cohort.parent / "report.html")
    assert "../../report.html" in [attributes.get("href") for _, attributes in elsewhere.tags]


def test_names_and_errors_are_escaped(tmp_path):
    out = tmp_path / "<img src=x onerror=alert(2)>"
    hostile = {
        "source": f"bids:raw:sub-<b>/anat/{EVIL}_T1w.nii.gz",
        "warnings": [EVIL],
        "undefined": {f"before.{EVIL}": EVIL},
        "segmentation": {"method": EVIL},
        "before": {EVIL: 1},
        "gate": gate(EVIL, EVIL, applied=EVIL) | {"checks": {EVIL: {"value": EVIL, "most": EVIL}}},
        "skull_strip": EVIL,
        "runtime_s": {EVIL: 1},
    }
    write_scan(out, metrics=hostile)
    about = {"Method": {EVIL: EVIL, "Name": EVIL}, "Software": {EVIL: EVIL}}
    (out / f"{FOLDER}_desc-preproc_T1w.json").write_text(json.dumps(about))
    write_status(out, (T2W, EVIL, "failed", EVIL), (T2W, "n4", EVIL, EVIL))
    write_scan_pages(collect(out), n_procs=1)
    pages = sorted((out / "reports").glob("*.html"))
    assert len(pages) == 2
    for path in pages:
        page = Page(path)
        assert [tag for tag, _ in page.tags].count("script") == 2  # the data and the script of the ratings
        assert EVIL not in page.source and "<b>/" not in page.source
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert page.text.count(EVIL) >= 2
        assert all(re.fullmatch(r"figures/[\w.-]+", attributes["src"]) for attributes in page.images())


def write_values(out, values):
    """A record without images for each value of CJV, sub-01 and on."""
    for number, value in enumerate(values, start=1):
        scan = f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz"
        folder = out / "n4" / scan.rsplit("/", 1)[0]
        folder.mkdir(parents=True)
        record = {"source": f"bids:raw:{scan}", "before": BEFORE, "after": {"cjv": value}, "gate": gate("accepted")}
        write_judge(out, scan, "n4", record)
        (folder / f"sub-{number:02d}_desc-T1w_metrics.json").write_text(json.dumps(record))
    write_status(out)


def test_the_cohorts_range_and_this_scans_place(out):
    write_values(out, [0.5, 0.6, 0.6, 0.7, 0.9])
    assert "cohort 0.6000 (0.6000–0.7000); lower than 2 of 4 others" in made(out, "sub-02/anat/sub-02_T1w.nii.gz").text
    best = Page(scan_page(out, "sub-01/anat/sub-01_T1w.nii.gz"))
    assert "lower than 4 of 4 others" in best.text
    strip = next(a["aria-label"] for tag, a in best.tags if tag == "svg")
    assert strip.startswith("5 scans: median 0.6000, quartiles 0.6000 to 0.7000, range 0.5000 to 0.9000")
    assert "lower than 0 of 4 others" in Page(scan_page(out, "sub-05/anat/sub-05_T1w.nii.gz")).text


def test_the_range_is_that_of_the_site_and_contrast(out):
    """Of A's 0.5, 0.6, 0.7, 0.9 the quartiles are 0.575, 0.65, 0.75; B has two scans only; of C nothing is known."""
    write_values(out, [0.5, 0.6, 0.7, 0.9, 3.0, 4.0, 5.0])
    write_scan(out, T2W)
    cohort = collect(out)
    for result in cohort.results:
        result.site = {"05": "B", "06": "B", "07": None}.get(result.subject, "A")
    write_scan_pages(cohort, n_procs=1)

    def page(number):
        return Page(scan_page(out, f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz"))

    assert "A 0.6500 (0.5750–0.7500); lower than 2 of 3 others" in page(2).text
    strip = next(a["aria-label"] for tag, a in page(2).tags if tag == "svg")
    assert strip.startswith("4 scans of A: median 0.6500, quartiles 0.5750 to 0.7500, range 0.5000 to 0.9000")
    assert "cohort 0.9000 (0.6500–3.500); lower than 2 of 6 others" in page(5).text
    assert "cohort 0.9000 (0.6500–3.500); lower than 0 of 6 others" in page(7).text
    assert "1 scan only; no range" in Page(scan_page(out, T2W)).text  # of another contrast


def test_few_scans_have_no_range(judged_cohort):
    assert "1 scan only; no range" in made(judged_cohort).text


def test_what_makes_methods_incomparable_is_said(out, judged_cohort):
    file = out / "ubc/sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"SourceSHA256": "cd"}))
    done = write_scan_pages(collect(out), n_procs=1)
    texts = {problem.text for problem in done.problems}
    assert any("the methods corrected different versions of the source image" in text for text in texts)
    again = write_scan_pages(collect(out), n_procs=1)
    assert (again.made, {problem.text for problem in again.problems}) == (0, texts)


def test_methods_may_have_tissues_of_their_own(out, judged_cohort):
    """Each method's own segmentation is no contradiction: the judge's tissue compares them."""
    write_scan(
        out, method="ubc", metrics={"segmentation": {"method": "kmeans", "image": "the scan as corrected by ubc"}}
    )
    assert write_scan_pages(collect(out), n_procs=1).problems == []


def test_without_mask_and_segmentation_it_is_said(out):
    write_scan(out)
    (out / f"{FOLDER}_desc-brain_mask.nii.gz").unlink()
    page = made(out)
    assert "detected head (there is no brain mask)" in page.text
    assert not [a for a in page.images() if "outlines" in a["alt"]]


# --- damaged files


def test_a_damaged_image_is_said_and_stops_nothing(judged_cohort):
    file = judged_cohort / f"{FOLDER}_desc-preproc_T1w.nii.gz"
    file.write_bytes(file.read_bytes()[:800])
    done = write_scan_pages(collect(judged_cohort), n_procs=1)
    assert [problem.file for problem in done.problems] == [T1W]
    assert done.made == 2
    page = Page(scan_page(judged_cohort, T1W))
    assert f"{FOLDER}_desc-preproc_T1w.nii.gz: not a complete gzip file" in page.text
    assert str(judged_cohort) not in page.source
    assert any("corrected by ubc" in a["alt"] for a in page.images())
    assert not any("corrected by n4" in a["alt"] for a in page.images())
    # It is looked at again until it is put right.
    assert write_scan_pages(collect(judged_cohort), n_procs=1).made == 1
    write_scan(judged_cohort, metrics={"gate": gate("accepted")})
    assert write_scan_pages(collect(judged_cohort), n_procs=1).problems == []
    assert any("corrected by n4" in a["alt"] for a in Page(scan_page(judged_cohort, T1W)).images())


def test_an_image_of_another_grid_is_said(judged_cohort):
    file = judged_cohort / "ubc/sub-01/ses-1/anat/sub-01_ses-1_desc-T1w_biasfield.nii.gz"
    nifti.save(nib.Nifti1Image(np.ones((5, 5, 5), np.float32), AFFINE), file)
    assert "not on the grid of the other images of this scan" in made(judged_cohort).text


def test_a_damaged_segmentation_costs_only_its_outlines(judged_cohort):
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), judged_cohort / f"{FOLDER}_dseg.nii.gz")
    page = made(judged_cohort)
    assert "the segmentation cannot be read" in page.text
    assert any("outlines of brain mask:" in a["alt"] for a in page.images())


def test_records_of_other_shapes_are_not_fatal(out):
    odd = {"before": [1], "after": "x", "field": 3, "undefined": ["a"], "segmentation": None, "runtime_s": 5}
    write_scan(out, metrics=odd | {"warnings": 7, "gate": {"verdict": 3, "checks": {"a": 1}, "reasons": 5}})
    write_status(out)
    assert write_scan_pages(collect(out), n_procs=1).problems == []


def test_a_page_that_cannot_be_written_stops_no_other(judged_cohort):
    blocked = scan_page(judged_cohort, T1W)
    (blocked / "x").mkdir(parents=True)
    done = write_scan_pages(collect(judged_cohort), n_procs=1)
    assert [problem.file for problem in done.problems] == [T1W]
    assert "the page cannot be written" in done.problems[0].text
    assert scan_page(judged_cohort, T2W).is_file()


# --- again


def test_pages_are_made_again_only_where_something_changed(judged_cohort, monkeypatch):
    opened = []
    load = nifti.load
    monkeypatch.setattr(nifti, "load", lambda file: opened.append(file) or load(file))
    write_scan_pages(collect(judged_cohort), n_procs=1)
    first = {path: path.stat().st_mtime_ns for path in (judged_cohort / "reports").rglob("*.*")}
    opened.clear()
    again = write_scan_pages(collect(judged_cohort), n_procs=1)
    assert (again.made, again.unchanged, opened) == (0, 2, [])
    assert {path: path.stat().st_mtime_ns for path in (judged_cohort / "reports").rglob("*.*")} == first
    # Another outcome: other words, the same pictures.
    write_status(judged_cohort, (T2W, "ubc", "failed", "another reason"))
    assert write_scan_pages(collect(judged_cohort), n_procs=1).made == 2  # T1w's states are no longer known
    assert opened == [] and "another reason" in Page(scan_page(judged_cohort, T2W)).text
    # An image that was written anew, and a picture that was removed.
    corrected = judged_cohort / "n4" / "sub-02/anat/sub-02_desc-preproc_T2w.nii.gz"
    nifti.save(load(corrected), corrected)
    (judged_cohort / "reports/figures/sub-01_ses-1_desc-acquired_T1w.jpg").unlink()
    assert write_scan_pages(collect(judged_cohort), n_procs=1).made == 2
    assert corrected in opened
    assert (judged_cohort / "reports/figures/sub-01_ses-1_desc-acquired_T1w.jpg").is_file()


def test_pictures_that_a_page_no_longer_shows_are_removed(judged_cohort):
    made(judged_cohort)
    gone = judged_cohort / "reports/figures/sub-01_ses-1_desc-ubccorrected_T1w.jpg"
    foreign = judged_cohort / "reports/figures/mine.jpg"
    foreign.write_bytes(gone.read_bytes())
    write_status(judged_cohort, (T1W, "ubc", "failed", "no space"))
    made(judged_cohort)
    assert not gone.exists() and foreign.exists()


def test_pages_of_scans_that_were_removed_go(judged_cohort):
    write_scan_pages(collect(judged_cohort), n_procs=1)
    folder = judged_cohort / "reports"
    mine = folder / "sub-09_T1w.html"
    mine.write_text("a page of somebody else")
    kept = {path: path.read_bytes() for path in folder.rglob("*sub-01*.*")} | {mine: mine.read_bytes()}
    shutil.rmtree(judged_cohort / "n4/sub-02")
    write_status(judged_cohort, (T1W, "n4", "done", "n/a"), (T1W, "ubc", "rejected", "no support"))
    done = write_scan_pages(collect(judged_cohort), n_procs=1)
    assert done.removed == 1
    assert [path for path in folder.rglob("*.*") if "sub-02" in path.name] == []
    after = {path: path.read_bytes() for path in folder.rglob("*.*")}
    page = scan_page(judged_cohort, T1W)  # it no longer links to the other
    assert after.keys() == kept.keys()
    assert {path for path in kept if kept[path] != after[path]} == {page}
    assert write_scan_pages(collect(judged_cohort), n_procs=1).removed == 0


def test_a_page_that_somebody_changed_stays(judged_cohort):
    write_scan_pages(collect(judged_cohort), n_procs=1)
    changed = scan_page(judged_cohort, T2W)
    changed.write_text(changed.read_text() + "<p>a remark")
    shutil.rmtree(judged_cohort / "n4/sub-02")
    write_status(judged_cohort, (T1W, "n4", "done", "n/a"), (T1W, "ubc", "rejected", "no support"))
    assert write_scan_pages(collect(judged_cohort), n_procs=1).removed == 0
    assert changed.read_text().endswith("<p>a remark")


def test_waiting_scans_have_no_page(out):
    write_status(out, (T1W, "n4", "waiting", "n/a"), (T2W, "n4", "failed", "x"))
    assert write_scan_pages(collect(out), n_procs=1).made == 1
    assert not scan_page(out, T1W).exists()


def test_a_process_that_dies_costs_nothing(out, monkeypatch):
    class Dying:
        def __init__(self, *args, **options):
            pass

        def __enter__(self):
            raise BrokenProcessPool

        def __exit__(self, *args):
            return False

    monkeypatch.setattr(write, "ProcessPoolExecutor", Dying)
    monkeypatch.setattr(write, "FEW", 1)
    write_status(out, *[(f"sub-{i}/anat/sub-{i}_T1w.nii.gz", "n4", "failed", "x") for i in range(3)])
    assert write_scan_pages(collect(out), n_procs=2).made == 3
    assert len(list((out / "reports").glob("*.html"))) == 3


@pytest.mark.slow
def test_pages_made_in_parallel_are_the_same(tmp_path):
    texts = []
    for n_procs in (1, 2):
        out = tmp_path / str(n_procs) / "out"
        for number in range(8):
            scan = f"sub-{number}/anat/sub-{number}_T1w.nii.gz"
            write_scan(out, scan)
            for kind in ("preproc_T1w", "T1w_biasfield"):
                assert (out / f"n4/sub-{number}/anat/sub-{number}_desc-{kind}.nii.gz").is_file()
        assert write_scan_pages(collect(out), n_procs=n_procs).made == 8
        pages = sorted((out / "reports").glob("*.html"))
        # The other processes do not know that pictures are small here; each output folder has an id for its ratings.
        apart = r'made [\d: -]+UTC| (width|height)="\d+"|"store":"[0-9a-f]+"'
        texts.append([re.sub(apart, "", page.read_text()) for page in pages])
    assert texts[0] == texts[1]


# --- the boilerplate


def test_boilerplate_says_what_was_run():
    record = {
        "gate": gate("accepted", applied="ubc"), "skull_strip": "deepbet",
        "segmentation": {"method": "atropos", "image": "the acquired image"},
    }  # fmt: skip
    about = {
        "Method": {"Name": "ubc", "Preset": "ttda", "WeightsSHA256": "ab" * 32},
        "Software": {"biascorr_pydra": "9.8"},
    }
    sentences = boilerplate([Result(T2W, "ubc_ttda", record=record, sidecar=about)])
    text = " ".join(sentences.sentences)
    assert "The T2w image was corrected for intensity non-uniformity with ubc (Perez-Caballero et al. 2024)" in text
    assert (
        "biascorr_pydra 9.8 (preset ttda, weights with SHA-256 abababababab…), within a brain mask by deepbet (Fisch"
        in text
    )
    assert "accepted it" in text and "segmented with atropos (Avants et al. 2011) on the acquired image" in text
    assert [reference.key for reference in sentences.references] == ["fisch2024", "perezcaballero2024", "avants2011b"]
    rejected = record | {"gate": gate("rejected", applied="none")}
    text = " ".join(boilerplate([Result(T2W, "n4", record=rejected)]).sentences)
    assert "rejected the field, and the image was passed on unchanged" in text
    instead = record | {"gate": gate("rejected", applied="n4")}
    assert "corrected by n4 instead" in " ".join(boilerplate([Result(T2W, "ubc", record=instead)]).sentences)
    assert boilerplate([Result(T2W, "n4", state="failed", reason="x")]).sentences == []
