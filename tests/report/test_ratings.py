"""Readers' ratings: read, refused, kept, shown, and left out of comparisons; thumbnails of the scans to look at."""

import json
import os
import re

import numpy as np
import pytest
from click.testing import CliRunner
from written_cohort import T1W, T2W, Page, gate, read_table, write_scan, write_status

from biascorr_pydra.errors import BIDSError
from biascorr_pydra.interfaces.cli.main import cli
from biascorr_pydra.report import write_report
from biascorr_pydra.report.cohort.findings import find
from biascorr_pydra.report.collect import Cohort, Result
from biascorr_pydra.report.paths import scan_page
from biascorr_pydra.report.ratings import Rating, Ratings, read_ratings, store_of

pytestmark = pytest.mark.usefixtures("small_pictures")
EVIL = "</script><img src=x onerror=alert(1)>"


def table(out, *lines, head="scan\trating\tnote\trated"):
    path = out / "given.tsv"
    path.write_text("".join(f"{line}\n" for line in (head, *lines)))
    return path


def test_a_table_is_read_as_the_page_saves_it(out):
    path = table(
        out, f"{T1W}\texclude\tghost, 2 cm\t2026-11-30T20:00:00Z", f"{T2W}\tn/a\tfine?\tn/a", "a_T1w\taccept\tn/a\tn/a"
    )
    assert read_ratings(path).by_place == {
        T1W: Rating("exclude", "ghost, 2 cm", "2026-11-30T20:00:00Z"),
        T2W: Rating(None, "fine?"),
        "a_T1w": Rating("accept"),
    }
    assert read_ratings(table(out, f"accept\t{T1W}", head="rating\tscan")).by_place == {T1W: Rating("accept")}


@pytest.mark.parametrize(
    ("lines", "head", "words"),
    [
        (["x\texlude\t\t"], None, r"line 2: not a rating of x\. Got: 'exlude'\. Write accept, exclude or n/a\."),
        (["\taccept\t\t"], None, r"line 2: no scan is named\. Name it"),
        (
            ["x\taccept\t\t", "y\taccept\t\t", "x\texclude\t\t"],
            None,
            r"line 4: the scan is rated otherwise above\. Got: x",
        ),
        (["x\taccept"], "name\trating", r"scan is not in it\. Got: name, rating\. Save the ratings"),
        ([], "", r"scan and rating is not in it\. Got: an empty file"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_line(out, lines, head, words):
    path = table(out, *lines, **({} if head is None else {"head": head}))
    with pytest.raises(BIDSError, match=words) as refused:
        read_ratings(path)
    assert refused.value.file == path
    with pytest.raises(BIDSError, match="not readable as a table of ratings"):
        read_ratings(out / "nowhere.tsv")


def test_ratings_of_another_data_set_are_refused_and_nothing_is_written(out):
    write_scan(out)
    write_status(out, (T1W, "n4", "done", "n/a"))
    path = table(out, "sub-99_T1w.nii.gz\taccept\t\t")
    with pytest.raises(BIDSError, match=rf"given\.tsv: none of the rated scans .* named as {T1W} is"):
        write_report(out, ratings=path)
    assert not (out / "report.html").exists()


def test_what_is_excluded_is_shown_and_not_compared():
    afters = [0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 5.0]
    results = [
        Result(f"sub-{i}_T1w.nii.gz", "n4", "done", record={"before": {"cjv": 1.0}, "after": {"cjv": after}})
        for i, after in enumerate(afters)
    ]
    rated = Ratings({"sub-6_T1w.nii.gz": Rating("exclude"), "sub-0_T1w.nii.gz": Rating("accept")})
    findings = find(Cohort("c", results, []), 3.5, ratings=rated)
    (row,) = [row for row in findings.comparisons if row["metric"] == "cjv"]
    assert (row["n"], row["median_method"]) == (6, pytest.approx(0.825))
    assert len(findings.scored) == len(findings.cohort.results) == 7
    assert [result.name for result in findings.counted.results] == [f"sub-{i}_T1w" for i in range(6)]


def test_ratings_are_in_the_page_and_the_tables_and_stay_until_taken_back(out):
    accepted = {"gate": gate("accepted", applied="n4")}
    for scan in (T1W, T2W):
        write_scan(out, scan, metrics=accepted)
    write_status(out, (T1W, "n4", "done", "n/a"), (T2W, "n4", "done", "n/a"))
    path = table(out, f"{T1W}\texclude\t{EVIL}\tn/a", "sub-09_T1w.nii.gz\taccept\t\t")
    write_report(out, ratings=path)
    again = write_report(out)  # a run makes the report anew, and knows of no option
    rows = {row["scan"]: row for row in read_table(again.metrics_tsv)}
    assert (rows[T1W]["rating"], rows[T1W]["rating_note"]) == ("exclude", EVIL)
    assert (rows[T2W]["rating"], rows[T2W]["rating_note"]) == ("n/a", "n/a")
    dictionary = json.loads(again.metrics_json.read_text())
    assert set(dictionary["rating"]["Levels"]) == {"accept", "exclude"}
    assert read_ratings(out / "reports/ratings.tsv") == read_ratings(path)
    page = Page(again.html)
    assert "ratings of 1 scan: 0 accepted, 1 excluded. The excluded are left out of the summary" in page.text
    assert "1 rated, not among these scans: sub-09_T1w.nii.gz" in page.text
    assert "Readers excluded 1 scan, left out of all comparisons." in page.text
    assert "1 left out of what follows" in page.text
    assert f"In the cohort’s report this scan is excluded: {EVIL}" in Page(scan_page(out, T1W)).text
    outcome = CliRunner().invoke(cli, ["report", str(out), "--no-scan-pages", "--ratings", str(table(out))])
    assert outcome.exit_code == 0
    assert not (out / "reports/ratings.tsv").exists()
    assert "rating" not in read_table(again.metrics_tsv)[0]


def test_a_kept_table_that_was_damaged_stops_no_report(out):
    write_scan(out)
    write_status(out, (T1W, "n4", "done", "n/a"))
    (out / "reports").mkdir()
    (out / "reports/ratings.tsv").write_text(f"scan\trating\n{T1W}\tmaybe\n")
    text = Page(write_report(out, scan_pages=False).html).text
    assert "reports/ratings.tsvnot used, so that no scan is left out: line 2: not a rating" in text
    assert "maybe" in (out / "reports/ratings.tsv").read_text()  # it is the reader's


def test_a_scans_page_runs_the_script_of_its_ratings_and_no_other(out):
    write_scan(out)
    write_status(out, (T1W, "n4", "done", "n/a"))
    write_report(out)
    page = Page(scan_page(out, T1W))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.count("'sha256-") == 1 and "unsafe-inline" not in policy.split("script-src")[1]
    known = json.loads(re.search(r'id="rating-data">(.*?)</script>', page.source, re.S)[1])
    assert known["scan"] == T1W and known["store"] == store_of(out)
    assert known["store"] in (out / "report.html").read_text()  # the cohort's page knows it by the same name
    assert store_of(out / "other") != store_of(out)


def test_the_scans_to_look_at_have_thumbnails(out):
    write_scan(out, metrics={"gate": gate("rejected", "no support")})
    write_scan(out, T2W, metrics={"gate": gate("accepted", applied="n4")})
    write_status(out, (T1W, "n4", "rejected", "no support"), (T2W, "n4", "done", "n/a"))
    page = Page(write_report(out).html)
    (image,) = page.images()  # of the one that is listed
    assert image["loading"] == "lazy" and "acquired, corrected, field" in image["alt"]
    pixels = page.picture("sub-01_ses-1_T1w by n4")
    assert pixels.shape == (int(image["height"]), int(image["width"]), 3)
    wide = (pixels.shape[1] - 6) // 3
    acquired, field = pixels[:, :wide], pixels[:, -wide:]
    assert np.abs(acquired - acquired.mean(axis=2, keepdims=True)).max() < 12  # gray
    # The field rises to the right: blue, where it is too dark, at the left.
    assert field[60, 5, 2] > field[60, 5, 0] + 50 and field[60, -6, 0] > field[60, -6, 2] + 50
    assert len(image["src"]) < 12_000
    assert len(Page(write_report(out, scan_pages=False).html).images()) == 1  # as drawn before
    (corrected,) = out.glob("n4/sub-01/**/*_desc-preproc_T1w.nii.gz")
    os.utime(corrected, ns=(1, 1))  # made again: what was drawn is of another image
    assert Page(write_report(out, scan_pages=False).html).images() == []
