"""The cohort's page in Chromium: plots, table, links, keyboard, phone, hostile names."""

import csv
import json

import pytest

from biascorr_pydra.report import write_report

from .large import EVIL, METHODS, N_SCANS

pytestmark = pytest.mark.browser

PHONE = (390, 844)


@pytest.fixture
def report(large_cohort):
    return large_cohort / "report.html"


def visible_rows(page) -> list[str]:
    return page.locator("#table tbody tr:visible td:first-child").all_inner_texts()


def drawn(page, plot: str):
    """Bring a plot into view and wait until it is drawn."""
    page.locator(plot).scroll_into_view_if_needed()
    page.wait_for_selector(f"{plot} .main-svg")
    return page.locator(plot)


def all_drawn(page) -> None:
    for plot in ("#plot-sites", "#plot-pairs", "#plot-differences"):
        drawn(page, plot)
    page.evaluate("window.scrollTo(0, 0)")


def test_desktop(report, visit):
    seen = visit(report)
    all_drawn(seen.page)
    assert seen.too_wide() == 0
    seen.screenshot("cohort-desktop")


def test_phone(report, visit):
    seen = visit(report, PHONE)
    all_drawn(seen.page)
    assert seen.too_wide() == 0
    # Sites are rows there, one under the other.
    assert seen.page.evaluate("document.getElementById('plot-sites').data[0].orientation") == "h"
    seen.screenshot("cohort-phone")


def test_flagged_scans_come_first(report, visit):
    page = visit(report).page
    order = page.locator("main > section").evaluate_all("all => all.map(one => one.id)")
    assert order[:2] == ["summary", "look"]
    kinds = page.locator("#looks > li p > b").all_inner_texts()
    assert kinds[0] == "failed" and kinds == sorted(kinds, key=["failed", "rejected", "worse", "outlier"].index)


def test_filters(report, visit):
    page = visit(report).page
    assert len(visible_rows(page)) == 100  # of 120
    assert "100 of 120 rows" in page.locator("#count").inner_text()
    page.locator("#more").click()
    assert len(visible_rows(page)) == 120
    page.locator("#f-method").select_option("ubc")
    methods = page.locator("#table tbody tr:visible td:nth-child(3)").all_inner_texts()
    assert methods == ["ubc"] * N_SCANS
    page.locator("#f-kind").select_option("failed")
    assert (
        page.locator("#table tbody tr:visible").count()
        == page.locator("#table tbody tr[data-method=ubc] td.alarming", has_text="failed").count()
    )
    page.locator("#reset").click()
    page.locator("#find").fill("0090007 ubc")
    assert visible_rows(page) == ["sub-0090007_T1w"]
    page.locator("#find").fill("nothing has this")
    assert visible_rows(page) == []
    assert "0 of 0 rows" in page.locator("#count").inner_text()


def test_sorting_by_keyboard(report, visit):
    page = visit(report).page
    page.locator("#more").click()
    head = page.locator("#table thead th", has_text="CJV").first
    column = head.evaluate("cell => cell.cellIndex")
    read = f"rows => rows.map(row => row.cells[{column}].dataset.v)"
    for way in ("ascending", "descending"):
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == way
        values = page.locator("#table tbody tr").evaluate_all(read)
        known = [float(value) for value in values if value]
        assert values[: len(known)] == [value for value in values if value]  # undefined last, both ways
        assert known == sorted(known, reverse=way == "descending") and len(known) > 100
    assert page.locator("#table thead th[aria-sort]").count() == 1


def test_everything_that_acts_is_reached_by_tab(report, visit):
    page = visit(report).page
    wanted = {"metric", "shown", "copy", "find", "f-method", "f-site", "f-kind", "reset", "more"}
    reached, first = set(), None
    for _ in range(260):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 40)")
        first = first or name
        reached.add(name)
        if wanted | {"Scan", "sub-0090001_T1w"} <= reached:
            break
    assert first == "Skip to the scans to look at"
    assert wanted <= reached
    assert "sub-0090001_T1w" in reached  # the table's link to a scan


def test_links_and_points_open_the_scans_pages(report, visit):
    page = visit(report).page
    page.locator("#table tbody a").first.click()
    assert page.title().startswith("sub-0090001_T1w")
    page.go_back()
    plot = drawn(page, "#plot-pairs")
    box = plot.locator(".scatterlayer .trace .points path").first.bounding_box()
    with page.expect_navigation():
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.title().startswith("sub-00900")


def test_choosing_a_metric_draws_it(report, visit):
    page = visit(report).page
    plot = drawn(page, "#plot-sites")
    assert "CJV" in plot.locator(".ytitle").text_content()
    names = page.evaluate("document.getElementById('plot-sites').data.map(trace => trace.name)")
    assert names == ["before", *METHODS]
    page.locator("#shown").select_option("change")
    page.wait_for_function("document.getElementById('plot-sites').data.length === 2")
    assert "change in %" in plot.locator(".ytitle").text_content()
    page.locator("#metric").select_option(label="Field range (P95 − P5)")
    page.wait_for_function("document.querySelector('#plot-sites .ytitle').textContent.includes('Field range')")
    assert not page.locator("#before-after").is_visible()  # there is no field before
    page.locator("#metric").select_option(label="CV of white matter (lower with less field, and with less contrast)")
    assert page.locator("#before-after").is_visible()


def test_the_numbers_of_the_plot_are_the_tables(large_cohort, visit):
    page = visit(large_cohort / "report.html").page
    drawn(page, "#plot-sites")
    values = page.evaluate("document.getElementById('plot-sites').data.find(trace => trace.name === 'n4').y")
    with open(large_cohort / "metrics.tsv") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE) if row["method"] == "n4"]
    expected = [float(row["cjv_after"]) for row in rows if row["cjv_after"] != "n/a"]
    assert values == pytest.approx(expected, rel=1e-4)


def test_hostile_names_are_only_text(report, visit):
    page = visit(report).page
    all_drawn(page)
    assert page.locator("img:not([src^='data:image/jpeg;base64,'])").count() == 0
    assert page.locator("#look li", has_text="<img src=x onerror=alert(1)>").count() >= 1
    ticks = page.locator("#plot-sites .xtick text").all_text_contents()
    assert any(tick.startswith("</script><img") for tick in ticks)
    assert page.locator("#f-site option", has_text="<b>bold</b>").count() == 1
    page.locator("#f-site").select_option(EVIL)
    assert page.locator("#table tbody tr:visible").count() > 0


def test_texts_for_those_who_do_not_see(report, visit):
    page = visit(report).page
    assert page.locator("[role=img]:not([aria-label])").count() == 0
    assert page.locator("[role=img]").count() == 3
    assert page.locator("html").get_attribute("lang") == "en"
    unnamed = (
        "all => all.filter(one => !one.labels.length && !one.getAttribute('aria-label')).map(one => one.outerHTML)"
    )
    assert page.locator("select, input").evaluate_all(unnamed) == []
    assert page.locator("th:not([scope])").count() == 0


def test_colors_are_told_apart(report, visit):
    """Methods differ in symbol as well as in color, and the colors are Okabe and Ito's."""
    page = visit(report).page
    drawn(page, "#plot-pairs")
    marks = page.evaluate(
        "document.getElementById('plot-pairs').data.filter(trace => trace.mode === 'markers')"
        ".map(trace => [trace.marker.color, trace.marker.symbol])"
    )
    assert marks == [["#0072b2", "circle"], ["#d55e00", "square"]]


def test_copying_the_text(report, visit):
    seen = visit(report, permissions=["clipboard-read", "clipboard-write"])
    seen.page.locator("#copy").click()
    seen.page.wait_for_function("document.getElementById('copied').textContent !== ''")
    assert seen.page.locator("#copied").inner_text() in ("Copied.", "Marked; copy it with Ctrl+C.")


def test_without_javascript_all_rows_are_there(report, visit):
    page = visit(report, java_script_enabled=False).page
    assert page.locator("#table tbody tr:visible").count() == 2 * N_SCANS
    assert page.locator(".noscript").is_visible()
    assert not page.locator("#metric").is_visible()


def test_nothing_yet(tmp_path, visit):
    (tmp_path / "status.tsv").write_text("scan\tmethod\tstate\treason\n")
    page = visit(write_report(tmp_path).html).page
    assert "Nothing has been corrected here yet" in page.locator("main").inner_text()


def test_the_data_are_json(report, visit):
    text = visit(report).page.locator("#data").text_content()
    assert len(json.loads(text)["rows"]["name"]) == 2 * N_SCANS
