"""Ratings in Chromium, from file://: one store for all pages, saved as a table, and read back."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the writers of the other tests
from written_cohort import T1W, T2W, gate, write_scan, write_status

from biascorr_pydra.report import write_report
from biascorr_pydra.report.paths import scan_page
from biascorr_pydra.report.ratings import read_ratings

pytestmark = pytest.mark.browser

NO_STORE = (
    """Object.defineProperty(window, "localStorage", { get() { throw new DOMException("no", "SecurityError"); } })"""
)
PRESSED = "#rating button[aria-pressed=true]"


def write_cohort(out):
    """A T1w whose field was rejected, and a T2w with nothing to look at."""
    write_scan(out, metrics={"gate": gate("rejected", "no support")})
    write_scan(out, T2W, metrics={"gate": gate("accepted", applied="n4")})
    write_status(out, (T1W, "n4", "rejected", "no support"), (T2W, "n4", "done", "n/a"))
    return write_report(out)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort") / "out"
    write_cohort(out)
    return out


def opened(page, path):
    """Another page of the same browser."""
    other = page.context.new_page()
    other.goto(path.as_uri())
    return other


def saved(page, folder):
    with page.expect_download() as waiting:
        page.locator("#save-ratings").click()
    assert waiting.value.suggested_filename == "out_ratings.tsv"
    path = folder / "saved.tsv"
    waiting.value.save_as(path)
    return path


def test_a_rating_is_the_same_on_every_page_at_once(cohort, visit):
    from playwright.sync_api import expect

    page = visit(cohort / "report.html").page
    page.locator("#looks .exclude").click()
    page.locator("#looks input").fill("ghost")
    scan = opened(page, scan_page(cohort, T1W))
    assert scan.locator(PRESSED).all_inner_texts() == ["exclude"]
    assert scan.locator("#rating input").input_value() == "ghost"
    assert scan.locator("#rating > small").inner_text() == "Kept in this browser; the cohort’s page saves all ratings."
    scan.locator("#rating .accept").click()
    expect(page.locator("#looks .accept")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#looks .exclude")).to_have_attribute("aria-pressed", "false")
    scan.locator("#rating .accept").click()  # a second time takes it back
    expect(page.locator("#rated")).to_contain_text(
        "0 accepted, 0 excluded, 1 with a note; 1 of them not in this report"
    )
    page.reload()
    assert page.locator("#looks input").input_value() == "ghost"


def test_ratings_are_saved_and_read_back(tmp_path, visit):
    out = tmp_path / "out"
    write_cohort(out)
    page = visit(out / "report.html").page
    assert page.locator("#save-ratings").is_disabled()
    page.locator("#looks .exclude").click()
    page.locator("#looks input").fill("a\tb  c")
    page.locator("#table tbody tr", has_text="sub-02").locator(".accept").click()
    page.locator("#f-rating").select_option("accept")
    assert page.locator("#table tbody tr:visible td:first-child").all_inner_texts() == ["sub-02_T2w"]
    path = saved(page, tmp_path)
    known = read_ratings(path).by_place
    assert {scan: (rating.rating, rating.note) for scan, rating in known.items()} == {
        T1W: ("exclude", "a b c"),
        T2W: ("accept", ""),
    }
    assert all(rating.rated.startswith("20") for rating in known.values())
    write_report(out, ratings=path)
    page.reload()
    assert "2 scans: 1 accepted, 1 excluded" in page.locator("#ratings").inner_text()
    assert page.locator("#rated").inner_text() == "1 accepted, 1 excluded, 1 with a note."  # all are in the report
    scan = opened(page, scan_page(out, T1W))
    assert "this scan is excluded: a b c" in scan.locator("header").inner_text()
    elsewhere = visit(out / "report.html").page  # another reader sees what the report was made with
    assert elsewhere.locator("#looks .exclude").get_attribute("aria-pressed") == "true"
    assert elsewhere.locator("#looks input").input_value() == "a b c"


def test_all_ratings_of_a_report_can_be_taken_back(tmp_path, visit):
    out, table = tmp_path / "out", tmp_path / "ratings.tsv"
    write_cohort(out)
    table.write_text(f"scan\trating\n{T1W}\taccept\n")
    write_report(out, ratings=table, scan_pages=False)
    page = visit(out / "report.html").page
    page.locator("#looks .accept").click()
    assert page.locator("#rated").inner_text().startswith("0 accepted, 0 excluded")
    assert read_ratings(saved(page, tmp_path)).by_place == {}


def test_what_a_full_browser_did_not_keep_gives_way_to_what_it_keeps_later(cohort, visit):
    page = visit(cohort / "report.html").page
    page.evaluate(
        """() => { window.kept = Storage.prototype.setItem;
        Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); } }"""
    )
    page.locator("#looks .exclude").click()
    assert "This browser keeps nothing" in page.locator("#rated").inner_text()
    page.evaluate("() => { Storage.prototype.setItem = window.kept; }")
    page.locator("#looks .accept").click()
    assert page.locator("#looks .accept").get_attribute("aria-pressed") == "true"
    assert "This browser keeps nothing" not in page.locator("#rated").inner_text()
    page.reload()
    assert page.locator("#looks .accept").get_attribute("aria-pressed") == "true"


def test_cohorts_and_browsers_do_not_mix(tmp_path, cohort, visit):
    page = visit(cohort / "report.html").page
    page.locator("#looks .exclude").click()
    write_cohort(tmp_path / "out")  # the same names of scans, another folder
    other = opened(page, tmp_path / "out/report.html")
    assert other.locator("#looks [aria-pressed=true]").count() == 0
    # A browser that keeps each file's apart shows the scan's page what another browser would: nothing.
    alone = visit(scan_page(cohort, T1W)).page
    assert alone.locator(PRESSED).count() == 0
    assert "the cohort’s page was not opened yet" in alone.locator("#rating > small").inner_text()


def test_a_browser_that_keeps_nothing_says_so_and_saves_all_the_same(tmp_path, cohort, browser):
    context = browser.new_context()
    context.add_init_script(NO_STORE)
    page = context.new_page()
    page.goto((cohort / "report.html").as_uri())
    page.locator("#looks .exclude").click()
    assert "This browser keeps nothing when the page is closed: save them." in page.locator("#rated").inner_text()
    assert read_ratings(saved(page, tmp_path)).excluded(T1W)
    scan = opened(page, scan_page(cohort, T1W))
    assert "lets the page keep nothing" in scan.locator("#rating > small").inner_text()
    context.close()


def test_forgetting_asks_first(cohort, visit):
    page = visit(cohort / "report.html").page
    page.locator("#looks .accept").click()
    page.evaluate("window.confirm = () => false")
    page.locator("#forget-ratings").click()
    assert page.locator("#looks .accept").get_attribute("aria-pressed") == "true"
    page.evaluate("window.confirm = () => true")
    page.locator("#forget-ratings").click()
    assert page.locator("#looks .accept").get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_thumbnails_are_whole_and_no_page_is_too_wide(cohort, visit, size):
    seen = visit(cohort / "report.html", size)
    image = seen.page.locator("#looks img")
    image.scroll_into_view_if_needed()
    assert image.evaluate("e => e.decode().then(() => e.naturalWidth >= e.width)")
    box = image.bounding_box()
    assert box["width"] > 200 and box["x"] + box["width"] <= size[0]
    assert seen.too_wide() == 0
