"""The page of whole interviews in a real headless browser: nothing runs, nothing is fetched, all works by keyboard."""

import re

import pytest
from browser import ATTACK, assert_controls_are_named_and_show_focus
from interviews import QUESTIONS, STOP, interview, write_interviews
from test_report_browser import CONTRASTS

from tuner.learn_to_ask.core.records import Course, Fact
from tuner.learn_to_ask.report.interviews.write import prepare_interview_report

pytestmark = pytest.mark.browser

NATURE, SEVERITY, TRIGGER = QUESTIONS
LOGGED = (f"{NATURE} {TRIGGER}", STOP)


def session(number, *said, diagn="Flu"):
    return interview(*said, session_id=number, logged=LOGGED).model_copy(update={"diagn": diagn})


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Base against tuned: every way to end, every mark, and a session that only tuned has."""
    folder = tmp_path_factory.mktemp("interviews")
    base = [
        session("1", NATURE, "Is the stool watery?", "Do you smoke?", "hm", TRIGGER, f"Bye {STOP}"),
        session("2", STOP, diagn="Cold"),
        session("3", "hm", "hm", "hm", "hm", "hm", "hm"),
    ]
    tuned = [
        session("1", *QUESTIONS, STOP),
        session("2", *QUESTIONS, "Do you smoke?", STOP, diagn="Cold"),
        session("3", NATURE, STOP),
        session("4", *QUESTIONS, STOP),
    ]
    files = [write_interviews(folder / f"{name}.jsonl", held) for name, held in (("base", base), ("tuned", tuned))]
    prepare_interview_report(files, names=["base", "tuned"], output_dir=folder).write()
    return folder / "interviews.html"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A page in which every text is an attack."""
    folder = tmp_path_factory.mktemp("attacked") / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    one = session("1", NATURE, STOP)
    turns = [one.held.turns[0].model_copy(update={"question": f"asked {ATTACK}", "answer": f"answered {ATTACK}"})]
    hostile = one.model_copy(
        update={
            "session_id": f"1 {ATTACK}",
            "diagn": f"diagnosis {ATTACK}",
            "messages": [{"role": "user", "content": f"said {ATTACK}"}],
            "facts": [Fact(item=f"fact: {ATTACK}", said=ATTACK), *one.facts[1:]],
            "held": Course(turns=turns, end=f"stop {ATTACK}"),
            "policy": f"policy {ATTACK}",
            "user": f"llm:{ATTACK}",
            "domain": one.domain.model_copy(update={"user": f"user {ATTACK}", "assistant": f"assistant {ATTACK}"}),
        }
    )
    file = write_interviews(folder / "interviews.jsonl", [hostile])
    prepare_interview_report([file], names=[f"name {ATTACK}"], output_dir=folder).write()
    return folder / "interviews.html"


def flat(text):
    return re.sub(r"\s+", " ", text.replace("\u2028", " "))


def shown(page):
    return [text.split("\n")[0] for text in page.locator("#list button").all_inner_texts()]


def column(page, name):
    return page.locator(".courses > div", has=page.locator("h4", has_text=name))


def dialogue(page, name):
    return [text.split("\n") for text in column(page, name).locator(".dialogue li").all_inner_texts()]


def facts(page, name):
    return [flat(text) for text in column(page, name).locator(".checklist li").all_inner_texts()]


def test_hostile_text_is_shown_and_does_nothing(open_page, attacked):
    page = open_page(attacked).page

    assert page.evaluate("window.attacked") is None
    assert page.locator("img, iframe, object, svg [onload]").count() == 0
    assert page.locator("script").count() == 2
    detail = flat(page.locator("#detail").inner_text())
    seen = flat(ATTACK)
    for said in ("1", "diagnosis", "said", "asked", "answered", "fact:", "stop", "name", "user", "assistant"):
        assert f"{said} {seen}" in detail
    assert f"llm:{seen}" in flat(page.locator("#provenance").inner_text())
    assert f"name {seen}" in flat(page.locator("h1 + p").inner_text())


def test_nothing_is_fetched(open_page, pages):
    watched = open_page(pages)
    watched.page.locator("#list button").nth(2).click()

    assert watched.requests == [pages.as_uri()]


def test_tables_and_plots_hold_the_figures(open_page, pages):
    page = open_page(pages).page

    assert "logged questions" in page.locator("#metrics thead").inner_text()
    assert page.locator("svg.plot[role=img]").count() == 3
    # session 1 two of three facts, the others none
    titles = page.locator("#coverage svg title").all_text_contents()
    assert any(title.startswith("base, after turn 6: 0.222 [") for title in titles)
    assert sum(title.startswith("tuned, after turn ") for title in titles) == 7
    assert page.locator("#coverage svg .band").count() == 3
    assert "tuned: stopped in time 50%" in page.locator("#metrics svg title").all_text_contents()


def test_a_session_shows_every_course_turn_by_turn_with_marks_and_facts(open_page, pages):
    page = open_page(pages).page

    assert page.locator(".courses h4").all_inner_texts() == ["base", "tuned", "logged questions"]
    base = dialogue(page, "base")
    assert base[0] == ["doctor, turn 1", NATURE]
    assert base[1] == ["patient", "it is like water", "☑ symptom nature: watery stool"]
    assert base[2] == ["doctor, turn 2", NATURE, "repeated"]
    assert base[4] == ["doctor, turn 3", "Do you smoke?", "no answer in the log"]
    assert base[6] == ["doctor, turn 4", "hm", "no answer in the log", "not one question"]
    assert base[10] == ["doctor stops", f"Bye {STOP}", "not exactly the stop token"]
    assert facts(page, "base") == [
        "☑ symptom nature: watery stool turn 1",
        "☐ symptom severity: 4-5 times daily not known",
        "☑ symptom trigger: spicy food turn 5",
    ]
    assert "stopped too early: 5 turns, 2 of 3 facts" in column(page, "base").inner_text()
    assert "stopped in time: 3 turns, 3 of 3 facts" in column(page, "tuned").inner_text()
    assert dialogue(page, "tuned")[-1] == ["doctor stops", STOP]
    assert [fact.split()[-1] for fact in facts(page, "logged questions")] == ["1", "known", "1"]


def test_one_that_is_broken_off_and_one_that_is_missing_are_said(open_page, pages):
    page = open_page(pages).page
    page.locator("#list button", has_text="3").nth(0).click()
    assert dialogue(page, "base")[-1] == ["not stopped"]
    assert "never stopped: 6 turns, 0 of 3 facts" in column(page, "base").inner_text()

    page.locator("#list button").nth(3).click()
    assert "This file does not have the session." in column(page, "base").inner_text()
    assert "coverage: base n/a, tuned 1" in page.locator('#list [aria-current="true"]').inner_text()


@pytest.mark.parametrize(
    ("filters", "sessions"),
    [
        ({"outcome": "in time"}, ["1", "4"]),
        ({"outcome": "too early"}, ["1", "2", "3"]),
        ({"outcome": "too early", "side": "tuned"}, ["3"]),
        ({"outcome": "too late", "side": "tuned"}, ["2"]),
        ({"outcome": "broken off"}, ["3"]),
        ({"outcome": "too early", "side": "logged questions"}, ["1", "2", "3", "4"]),
        ({"side": "base"}, ["1", "2", "3"]),
        ({"diagnosis": "Cold"}, ["2"]),
        ({"diagnosis": "Cold", "outcome": "in time"}, []),
    ],
    ids=str,
)
def test_filters_choose_sessions(open_page, pages, filters, sessions):
    page = open_page(pages).page

    for name, value in filters.items():
        field = page.locator(f"form [name={name}]")
        field.select_option(label=value) if name == "side" else field.select_option(value)

    assert shown(page) == sessions
    assert page.locator("#count").inner_text() == f"{len(sessions)} of 4 sessions"
    if not sessions:
        page.get_by_role("button", name="one more").click()
        assert page.locator("#detail").inner_text() == "No session matches."


def test_keys_walk_through_sessions_and_turns(open_page, pages):
    page = open_page(pages).page
    page.locator("#examples-title").click()
    page.locator("#list button").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("ArrowUp")
    assert page.locator("#detail h3").inner_text().startswith("1")

    assert page.locator("#turn").inner_text() == "all shown"
    page.keyboard.press("l")
    assert page.locator("#turn").inner_text() == "after turn 0 of 5"
    assert dialogue(page, "base") == []
    page.keyboard.press("ArrowRight")
    assert len(dialogue(page, "base")) == 2
    assert [fact[0] for fact in facts(page, "base")] == ["☑", "☐", "☐"]
    # the logged expert stopped after its only turn, which is the next message
    assert len(dialogue(page, "logged questions")) == 2
    page.keyboard.press("l")
    assert dialogue(page, "logged questions")[-1] == ["doctor stops", STOP]
    page.keyboard.press("h")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("h")
    assert page.locator("#turn").inner_text() == "after turn 0 of 5"
    page.keyboard.press("a")
    assert len(dialogue(page, "base")) == 11
    page.keyboard.press("h")
    assert page.locator("#turn").inner_text() == "after turn 4 of 5"

    page.keyboard.press("j")
    assert page.locator("#turn").inner_text() == "all shown"


def test_buttons_step_through_turns_and_boxes_choose_columns(open_page, pages):
    page = open_page(pages).page
    page.get_by_role("button", name="one less").click()
    assert page.locator("#turn").inner_text() == "after turn 4 of 5"
    page.get_by_role("button", name="one more").click()
    assert dialogue(page, "base")[-1][0] == "doctor stops"
    page.get_by_role("button", name="one more").click()
    assert page.locator("#turn").inner_text() == "all shown"

    page.get_by_role("checkbox", name="tuned").uncheck()
    assert page.locator(".courses h4").all_inner_texts() == ["base", "logged questions"]
    page.locator("#list button").nth(1).click()
    assert page.locator(".courses h4").all_inner_texts() == ["base", "logged questions"]
    page.get_by_role("checkbox", name="tuned").check()
    assert page.locator(".courses h4").all_inner_texts() == ["base", "tuned", "logged questions"]


def test_every_control_has_a_name_and_a_visible_focus(open_page, pages):
    page = open_page(pages).page
    assert_controls_are_named_and_show_focus(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background_in_both_schemes(open_page, pages, scheme):
    page = open_page(pages, color_scheme=scheme).page

    contrasts = page.evaluate(CONTRASTS)

    assert len(contrasts) > 200
    # WCAG 2.2, 1.4.3: at least 4.5 to 1.
    assert [found for found in contrasts if found[1] < 4.5] == []


def test_a_narrow_screen_scrolls_tables_and_columns_and_not_the_page(open_page, pages):
    page = open_page(pages, viewport={"width": 360, "height": 700}).page

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(
        "(() => { const s = document.querySelector('.courses'); return s.scrollWidth > s.clientWidth })()"
    )


def test_without_script_the_figures_are_there_and_the_reader_says_what_it_needs(open_page, pages):
    page = open_page(pages, java_script_enabled=False).page

    assert page.locator("#metrics tbody tr").count() == 12
    assert page.locator("form.filters").is_hidden()
    assert page.locator("#view").is_hidden()
    assert "needs JavaScript" in page.locator("#examples").inner_text()
