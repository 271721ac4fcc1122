"""A scan's page in a real browser: what a reader sees, clicks and types."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the writers of the other tests
from written_cohort import BEFORE, T1W, T2W, write_scan, write_status

from biascorr_pydra.report.collect import collect
from biascorr_pydra.report.paths import scan_page
from biascorr_pydra.report.scan import write_scan_pages

pytestmark = pytest.mark.browser
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
SHOWN = "e => getComputedStyle(e).opacity"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A T1w by two methods, one rejected, with hostile words in every record; a T2w that failed."""
    out = tmp_path_factory.mktemp("cohort") / "out"
    checks = {"support": {"value": 0.1, "least": 0.55, "passed": False}}
    for method, verdict in (("n4", "accepted"), ("ubc", "rejected")):
        gate = {"verdict": verdict, "reasons": [EVIL], "checks": checks, "applied": "none"}
        write_scan(out, method=method, metrics={"gate": gate, "warnings": [EVIL], "before": BEFORE | {EVIL: 1}})
    write_status(out, (T1W, "n4", "done", "n/a"), (T1W, "ubc", "rejected", EVIL), (T2W, "n4", "failed", EVIL))
    assert write_scan_pages(collect(out), n_procs=1).problems == []
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scan", [T1W, T2W])
def test_page_is_whole_and_no_wider_than_the_window(visit, cohort, scan, size):
    seen = visit(scan_page(cohort, scan), SIZES[size])
    assert seen.too_wide() <= 0
    images = seen.page.locator("img")
    assert images.count() == (13 if scan == T1W else 0)
    for image in images.all():
        assert image.evaluate("e => e.complete && e.naturalWidth") > 0
        assert image.get_attribute("alt").strip()
    assert seen.page.locator("iframe, object, link").count() == 0
    assert seen.page.locator("script").count() == 2  # the data and the script of the ratings
    assert seen.page.get_by_text("alert(2)").count() >= 1  # shown, not run
    seen.screenshot(f"scan-{'T1w' if scan == T1W else 'T2w-failed'}-{size}")


def test_images_flicker_under_the_pointer_and_under_the_keyboards_focus(visit, cohort):
    page = visit(scan_page(cohort, T1W)).page
    front = page.locator(".stage .b")
    page.mouse.move(2, 2)
    assert front.evaluate("e => getComputedStyle(e).animationName") == "none"
    assert front.evaluate(SHOWN) == "0"  # at rest the acquired image is seen
    page.locator(".stage").hover()
    assert front.evaluate("e => getComputedStyle(e).animationName") == "flicker"
    page.mouse.move(2, 2)
    page.locator(".stage").focus()
    assert front.evaluate("e => getComputedStyle(e).animationName") == "flicker"


def test_flicker_is_still_where_the_reader_asked_for_less_motion(visit, cohort):
    page = visit(scan_page(cohort, T1W), reduced_motion="reduce").page
    page.locator(".stage").hover()
    front = page.locator(".stage .b")
    assert front.evaluate("e => getComputedStyle(e).animationName") == "none"
    assert front.evaluate(SHOWN) == "1"


def test_two_methods_are_compared_by_keyboard_alone(visit, cohort):
    seen = visit(scan_page(cohort, T1W))
    page = seen.page
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "a":
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("input[name=a]:checked").get_attribute("id") == "a1"
    assert page.locator("input[name=b]:checked").get_attribute("id") == "b2"
    assert page.locator(".stage .a .layer:visible span").inner_text() == "n4 (unchanged)"
    assert page.locator(".stage .b .layer:visible span").inner_text() == "ubc (unchanged)"
    assert page.locator(".stage .f .layer:visible span").inner_text() == "field, ubc (unchanged)"
    # The focus is seen on the label of what it is on.
    assert page.locator('label[for="b2"]').evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def test_the_images_lie_over_one_another_or_side_by_side(visit, cohort):
    page = visit(scan_page(cohort, T1W)).page
    back, front = (page.locator(f".stage .{side} img:visible") for side in "ab")
    assert back.bounding_box() == front.bounding_box()
    page.locator('label[for="how-side"]').click()
    left, right = back.bounding_box(), front.bounding_box()
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    assert page.locator(".stage .b").evaluate(SHOWN) == "1"


def test_links_lead_to_sections_and_to_the_next_page(visit, cohort):
    from playwright.sync_api import expect

    page = visit(scan_page(cohort, T1W)).page
    page.get_by_role("link", name="Metrics", exact=True).click()
    expect(page.locator("#metrics h2")).to_be_in_viewport()
    page.get_by_role("link", name="next").click()
    page.wait_for_url("**/reports/sub-02_T2w.html")
    page.get_by_role("link", name="previous").click()
    page.wait_for_url("**/reports/sub-01_ses-1_T1w.html")
    page.locator("summary").first.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
