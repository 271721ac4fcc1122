"""Where the reader asked for dark pages: every text stands out from what is behind it, and the plots are dark, too."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the writers of the other tests
from written_cohort import T1W, write_scan, write_status

from biascorr_pydra.report import write_report
from biascorr_pydra.report.paths import scan_page

pytestmark = pytest.mark.browser

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
#: Texts whose contrast (WCAG 2) with the nearest colored background behind them is below 4.5, as [text, contrast].
FAINT = """() => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4));
    return .2126 * x + .7152 * y + .0722 * z;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest("svg, script")) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < 4.5) faint.push([e.textContent.trim().slice(0, 40), contrast]);
  }
  return faint;
}"""
PAPER = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_of_a_cohorts_page_stands_out(large_cohort, visit, scheme):
    page = visit(large_cohort / "report.html", color_scheme=scheme).page
    assert page.evaluate(PAPER) == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 27)"}[scheme]
    assert page.evaluate(FAINT) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_of_a_scans_page_stands_out(tmp_path, visit, scheme):
    write_scan(tmp_path)
    write_scan(tmp_path, method="ubc", metrics={"gate": {"verdict": "rejected", "reasons": ["x"], "applied": "none"}})
    write_status(tmp_path, (T1W, "n4", "done", "n/a"), (T1W, "ubc", "rejected", "x"), (T1W, "no", "failed", "why"))
    write_report(tmp_path)
    page = visit(scan_page(tmp_path, T1W), color_scheme=scheme).page
    assert page.evaluate(PAPER) == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 27)"}[scheme]
    assert page.evaluate(FAINT) == []
    # The histograms are drawn on white.
    turned = page.locator("#histograms img").first.evaluate("e => getComputedStyle(e).filter")
    assert (turned == "none") == (scheme == "light")


def test_plots_follow_the_readers_choice_and_are_printed_on_white(large_cohort, visit):
    page = visit(large_cohort / "report.html", color_scheme="dark").page
    page.locator("#plot-sites").scroll_into_view_if_needed()
    page.wait_for_selector("#plot-sites .main-svg")
    paper = "document.getElementById('plot-sites').layout.paper_bgcolor"
    assert page.evaluate(paper) == "#14181b"
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(paper) == "#fff"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(paper) == "#14181b"
    page.emulate_media(color_scheme="light")
    for _ in range(100):  # the page's policy lets nothing be evaluated in it that waits
        if page.evaluate(paper) == "#fff":
            break
        page.wait_for_timeout(100)
    assert page.evaluate(paper) == "#fff"


@pytest.mark.parametrize("size", SIZES)
def test_the_scans_to_look_at_are_read_without_scrolling_sideways(large_cohort, visit, size):
    seen = visit(large_cohort / "report.html", SIZES[size])
    looks = seen.page.locator("#looks > li")
    assert looks.count() >= 1
    for text in looks.locator("h3, p, li").all():
        box = text.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= SIZES[size][0]
        assert text.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 14
    assert "Why in this order: failed" in seen.page.locator("#look").inner_text()
    seen.page.locator("#look").scroll_into_view_if_needed()
    seen.screenshot(f"looks-{size}", full=False)
