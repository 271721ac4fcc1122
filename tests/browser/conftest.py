"""A real browser for the reports: Debian's Chromium, driven by playwright; nothing is downloaded.

    apt-get install chromium && pip install playwright && pytest -m browser -n 0

BIASCORR_CHROMIUM names another browser. With BIASCORR_SCREENSHOTS=DIR the tests leave their screenshots there.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .large import write_large_cohort

DESKTOP, PHONE = (1280, 900), (390, 844)
PATIENCE_MS = 180_000  # a machine may be busy; nothing is told of speed here
INSIDE = ("file:", "data:", "blob:", "about:")
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass
class Visit:
    """An open page, and what it did that it should not have done.

    Attributes
    ----------
    page : playwright's Page
    errors : what it wrote to the console as an error or warning, and exceptions
    outside : addresses it asked for beyond its own files
    dialogs : texts of dialogs that it opened; a name with a script in it would
    """

    page: object
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def too_wide(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate(TOO_WIDE)

    def screenshot(self, name: str, *, full: bool = True) -> None:
        """Leave a picture in BIASCORR_SCREENSHOTS, if that is set."""
        if folder := os.environ.get("BIASCORR_SCREENSHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=full)

    def check(self) -> None:
        assert not self.errors, self.errors
        assert not self.outside, self.outside
        assert not self.dialogs, self.dialogs


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    executable = os.environ.get("BIASCORR_CHROMIUM") or shutil.which("chromium")
    if not executable:
        pytest.fail("no chromium: apt-get install chromium, or set BIASCORR_CHROMIUM")
    with sync_playwright() as playwright:
        # The container's root may not use Chromium's sandbox; the pages are the tests' own.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def large_cohort(tmp_path_factory):
    """The output folder of a cohort of 60 scans at 17 sites, with its report."""
    return write_large_cohort(tmp_path_factory.mktemp("cohort") / "out")


@pytest.fixture
def visit(browser):
    """Open a page: ``visit(path, size=PHONE)`` gives a :class:`Visit`; at the end no page may have misbehaved."""
    contexts, visits = [], []

    def open_page(path, size=DESKTOP, **options) -> Visit:
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        seen = Visit(context.new_page())
        visits.append(seen)
        seen.page.set_default_timeout(PATIENCE_MS)

        def judge(route):
            if route.request.url.startswith(INSIDE):
                route.continue_()
            else:
                seen.outside.append(route.request.url)
                route.abort()

        def dismiss(dialog):
            seen.dialogs.append(dialog.message)
            dialog.dismiss()

        context.route("**/*", judge)
        seen.page.on("console", lambda m: seen.errors.append(m.text) if m.type in ("error", "warning") else None)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("dialog", dismiss)
        seen.page.goto(Path(path).resolve().as_uri())
        return seen

    yield open_page
    for context in contexts:
        context.close()
    for seen in visits:
        seen.check()
