"""A headless browser, a page that notes what it fetches and says, and text that attacks it."""

import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


ATTACK = (
    "<script>window.attacked = 1</script><img src=https://evil.invalid/x onerror='window.attacked = 1'>"
    "</script><script>window.attacked = 1</script><!-- <svg onload=window.attacked=1> &lt; \u2028 {{ 7 * 7 }} "
    "javascript:window.attacked=1 ]]> `|\\u003cscript"
)


AGAIN = {"think": f"again {ATTACK}", "format_score": 0.5, "content_score": 0.0}


def browser_path():
    """Chromium, wherever it is; without one the tests are skipped, or fail where they must run."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found:
        return found
    message = (
        f"install Chromium (one of {', '.join(BROWSERS)} on PATH, or CHROMIUM=/path/to/it) to test the report's page"
    )
    if os.environ.get("LEARN2ASK_REQUIRE_BROWSER") == "1":
        pytest.fail(message)
    return pytest.skip(message)


class Watched:
    """A page and everything it asked for or complained about."""

    def __init__(self, page):
        self.page = page
        self.requests = []
        self.complaints = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


def assert_controls_are_named_and_show_focus(page):
    """Every control has a name, and whatever Tab reaches is outlined."""
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("select, input, button, a, [tabindex='0']")].filter((element) =>
        !(element.labels?.length || element.textContent.trim() || element.getAttribute("aria-label"))).length"""
    )
    assert unnamed == 0

    reached = 0
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement !== document.body"):
        reached += 1
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", page.evaluate("document.activeElement.outerHTML.slice(0, 80)")
        page.keyboard.press("Tab")
    assert reached > 20
