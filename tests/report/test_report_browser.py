"""The page in a real headless browser: nothing runs, nothing is fetched, all of it works by keyboard."""

import re

import pytest
from browser import ATTACK, assert_controls_are_named_and_show_focus, browser_path

pytestmark = pytest.mark.browser


def shown_cids(page):
    return [text.split("\n")[0] for text in page.locator("#list button").all_inner_texts()]


def chosen(page):
    return page.locator("#detail h3").inner_text()


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_without_a_browser_these_tests_are_skipped_or_fail_where_they_must_run(monkeypatch, required, outcome):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("LEARN2ASK_REQUIRE_BROWSER", required)

    with pytest.raises(outcome, match="install Chromium"):
        browser_path()


def test_hostile_text_is_shown_and_does_nothing(open_page, attacked):
    watched = open_page(attacked)

    assert watched.page.evaluate("window.attacked") is None
    assert watched.page.locator("img, iframe, object, svg [onload]").count() == 0
    assert watched.page.locator("script").count() == 2
    detail = watched.page.locator("#detail").inner_text().replace("\u2028", " ")
    seen = re.sub(r"\s+", " ", ATTACK)
    for said in (f"1_2{seen}", f"diagnosis {seen}", f"symptom: {seen}", f"said {seen}", f"Is it dry? {seen}",
                 f"Grader: {seen}", f"again {seen}"):  # fmt: skip
        assert said in re.sub(r"\s+", " ", detail)
    for table in ("#diagnosis", "#provenance"):
        assert "<script>window.attacked = 1</script>" in watched.page.locator(table).inner_text()
    assert f"name {seen}" in re.sub(r"\s+", " ", watched.page.locator("h1 + p").inner_text())


def test_nothing_is_fetched(open_page, report):
    watched = open_page(report)
    watched.page.locator("#list button").nth(3).click()

    assert watched.requests == [report.as_uri()]


def test_a_script_that_slipped_in_would_be_refused(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    refused = []
    page.on("console", lambda message: refused.append(message.text))

    page.evaluate(
        """() => { const script = document.createElement("script"); script.textContent = "window.attacked = 1";
        document.body.append(script); const image = new Image(); image.src = "https://evil.invalid/x"; }"""
    )

    assert page.evaluate("window.attacked") is None
    assert sum("Content Security Policy" in text for text in refused) == 2
    page.close()


def test_the_tables_hold_the_figures_and_the_plots_are_there(open_page, report):
    page = open_page(report).page

    row = page.locator("#metrics tbody tr", has_text="Total reward").inner_text()
    assert "2.043 [" in row
    assert page.locator("svg.plot[role=img]").count() == 3
    assert "12 (75.0%)" in page.locator("#confusion svg").text_content()
    assert page.locator("#metrics th[scope=col]", has_text="published").count() == 3


def test_an_example_shows_dialogue_reference_and_both_evaluations_with_grades_and_reasons(open_page, report):
    page = open_page(report).page
    page.locator("#list button", has_text="1_2").click()

    assert page.locator(".dialogue li").all_inner_texts() == [
        "patient\nuser 0 of 1_2",
        "doctor\nassistant 1 of 1_2",
        "patient\nuser 2 of 1_2",
    ]
    assert "symptom: cough" in page.locator(".facts").inner_text()
    assert page.locator(".rollouts h4").all_inner_texts() == ["base", "tuned"]
    cards = page.locator(".rollouts > div").first.locator(".rollout").all_inner_texts()
    assert cards[0].split("\n\n") == [
        "continued, right", "Is it dry?", "reward 2 · action 1 · content 0 · format 1", "Grader: because",
    ]  # fmt: skip
    assert cards[1].split("\n\n") == ["stopped, wrong", "<stop />", "reward 0 · action 0 · content 0 · format 0"]


def test_a_failed_grading_is_said(open_page, report):
    page = open_page(report).page
    page.locator("#list button", has_text="5_0").click()

    assert "grading failed: no scores" in page.locator(".rollouts > div").first.inner_text()
    assert "mean reward: base n/a" in page.locator('#list [aria-current="true"]').inner_text()


@pytest.mark.parametrize(
    ("filters", "cids"),
    [
        ({"truth": "stop"}, ["1_4", "2_2", "3_2", "4_3", "5_4"]),
        ({"diagnosis": '["Flu", 1]'}, ["4_1", "4_3"]),
        ({"diagnosis": "(none)"}, ["6_0"]),
        ({"decision": "failed"}, ["2_0", "5_0"]),
        ({"decision": "stop", "truth": "continue"}, ["1_2", "3_0", "6_0"]),
        ({"decision": "wrong", "evaluation": "tuned"}, ["6_0"]),
        ({"decision": "wrong", "truth": "stop"}, ["2_2", "3_2", "5_4"]),
        ({"evaluation": "base", "score": "content", "from": "0.5", "to": "0.5"}, ["1_0", "4_1"]),
        ({"evaluation": "base", "score": "reward", "from": "4"}, ["1_0", "1_4", "2_2", "4_3", "6_0"]),
        ({"evaluation": "base", "score": "format", "to": "0", "decision": "right"}, ["1_4", "4_1", "5_2", "5_4"]),
        # One rollout has to meet all three conditions.
        ({"evaluation": "base", "truth": "stop", "decision": "wrong", "score": "reward", "from": "1"}, []),
    ],
    ids=str,
)
def test_filters_choose_examples(open_page, report, filters, cids):
    page = open_page(report).page

    for name, value in filters.items():
        field = page.locator(f"form [name={name}]")
        field.fill(value) if name in ("from", "to") else field.select_option(value)

    assert shown_cids(page) == cids
    assert page.locator("#count").inner_text() == f"{len(cids)} of 13 examples"
    if cids:
        assert chosen(page) == cids[0]
    else:
        assert page.locator("#detail").inner_text() == "No example matches."


def test_clear_shows_everything_again(open_page, report):
    page = open_page(report).page
    page.locator("[name=truth]").select_option("stop")
    page.get_by_role("button", name="Clear").click()

    page.wait_for_function("document.querySelectorAll('#list button').length === 13")
    assert chosen(page) == "1_0"


def test_the_first_tab_leads_to_the_examples_and_the_list_is_walked_by_arrows(open_page, report):
    page = open_page(report).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the examples"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "examples"

    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#list') !== null"):
            break
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert (chosen(page), shown_cids(page)[2]) == ("1_4", "1_4")
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    page.keyboard.press("ArrowUp")
    assert chosen(page) == "1_2"
    page.keyboard.press("End")
    assert chosen(page) == "6_0"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    assert chosen(page) == "1_0"


def test_j_and_k_walk_through_examples_from_the_text_but_not_while_typing(open_page, report):
    page = open_page(report).page
    page.locator("#detail h3").click()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert chosen(page) == "1_2"

    page.locator("[name=truth]").focus()
    page.keyboard.press("j")
    assert chosen(page) == "1_2"


def test_every_control_has_a_name_and_a_visible_focus(open_page, report):
    page = open_page(report).page
    assert_controls_are_named_and_show_focus(page)


CONTRASTS = """() => {
  const numbers = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const over = (top, alpha, below) => below.map((part, index) => top[index] * alpha + part * (1 - alpha));
  const opaque = (color) => { const [r, g, b, a = 1] = numbers(color); return a === 1 ? [r, g, b] : null; };
  const back = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = opaque(getComputedStyle(one).backgroundColor);
      if (found) return found;
    }
    return [255, 255, 255];
  };
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.closest("script, style, title, noscript")) continue;
    const style = getComputedStyle(element);
    const inPlot = element.closest("svg");
    const color = opaque(inPlot ? style.fill : style.color);
    found.push([element.textContent.trim().slice(0, 40), ratio(color, back(element))]);
    if (element.closest("#confusion svg") && !element.matches(".tick, .strong")) {
      for (const cell of element.closest("svg").querySelectorAll(".cell")) {
        const tint = getComputedStyle(cell);
        const below = over(opaque(tint.fill), Number(tint.fillOpacity), back(element));
        found.push([`${element.textContent} on a cell`, ratio(color, below)]);
      }
    }
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background_in_both_schemes(open_page, report, scheme):
    page = open_page(report, color_scheme=scheme).page
    page.locator("#list button", has_text="1_2").click()

    contrasts = page.evaluate(CONTRASTS)

    assert len(contrasts) > 200
    # WCAG 2.2, 1.4.3: at least 4.5 to 1.
    assert [found for found in contrasts if found[1] < 4.5] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 26)"
    assert dark == (scheme == "dark")


def test_a_narrow_screen_scrolls_tables_and_not_the_page(open_page, report):
    page = open_page(report, viewport={"width": 360, "height": 700}).page

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(
        "(() => { const s = document.querySelector('#metrics .scroll'); return s.scrollWidth > s.clientWidth })()"
    )


def test_without_script_the_figures_are_there_and_the_browser_says_what_it_needs(open_page, report):
    page = open_page(report, java_script_enabled=False).page

    assert page.locator("#metrics tbody tr").count() == 9
    assert page.locator(".filters").is_hidden()
    assert "needs JavaScript" in page.locator("#examples").inner_text()
