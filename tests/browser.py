"""A headless Chromium for tests of what users open in a browser.

@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser

def test_the_page_has_a_title(browser, tmp_path):
    with opened(browser, f"file://{tmp_path}/page.html") as page:
        assert page.title() == "…"
"""

import contextlib
import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (  # nothing but the page is loaded, also by the browser itself
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
ALONE = ("--no-sandbox", "--disable-gpu")  # as in a container: no user namespaces, no display
PHONE = {"width": 390, "height": 844}  # what most phones show, in CSS pixels


@contextlib.contextmanager
def chromium():
    """A Playwright `Browser`. Skips the test where there is none; in CI that is a failure."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        reason = f"needs a Chromium on PATH, under one of the names {', '.join(NAMES)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    # Not at the top: a laptop without a browser may be without Playwright too.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*QUIET, *ALONE])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser, url, *, scheme="light", size=None, timeout=30, **context):
    """A Playwright `Page` that shows `url`, in a profile of its own.

    Fails, when the block ends, if the page said an error: an exception in its code, an error on
    the console (also one about a file that cannot be loaded).

    Args:
        browser: what `chromium()` gives.
        url: `file://…` or `http://localhost:…`; a page from a file gets no network.
        scheme: "light" or "dark", what the user's system prefers.
        size: of the window, a dictionary of `width` and `height`, say `PHONE`.
        timeout: in seconds, for whatever the page is asked to do.
        **context: more of what Playwright's `Browser.new_context` takes, say `has_touch=True`.
    """
    size = size or {"width": 1280, "height": 900}
    errors = []
    profile = browser.new_context(color_scheme=scheme, viewport=size, **context)
    try:
        profile.set_default_timeout(timeout * 1000)
        page = profile.new_page()
        page.on("pageerror", lambda error: errors.append(f"exception: {error}"))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        if url.startswith("file:"):
            # Noted as well as refused: a page may catch the failure.
            page.on(
                "request",
                lambda request: (
                    None
                    if request.url.startswith(("file:", "data:", "blob:"))
                    else errors.append(f"asks the network for {request.url}")
                ),
            )
            profile.set_offline(True)
        page.goto(url)
        yield page
        assert not errors, "\n".join(errors)
    finally:
        profile.close()
