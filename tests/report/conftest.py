"""One browser and two reports for the tests of the page."""

import pytest
from browser import AGAIN, ATTACK, Watched, browser_path
from evaluations import HAND_CHECKED, RIGHT_STOP, STOPPED, asks, record, write

from tuner.learn_to_ask.report.write import write_report


@pytest.fixture(scope="module")
def browser():
    path = browser_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Opens a report; at the end nothing may have been complained about."""
    opened = []

    def open_report(path, **options):
        watched = Watched(browser.new_page(**options))
        opened.append(watched)
        watched.page.goto(path.as_uri())
        return watched

    yield open_report
    for watched in opened:
        assert watched.complaints == []
        watched.page.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Base against tuned: the hand-checked evaluation, and one that is right everywhere but in 6_0."""
    folder = tmp_path_factory.mktemp("report")
    tuned = [
        record(
            one["cid"],
            one["decision_truth"],
            *([RIGHT_STOP] * 2 if one["decision_truth"] == "stop" else [asks(1.0, 1.0), asks(0.5, 0.5)]),
            diagn=one["diagn"],
        )
        for one in HAND_CHECKED[:-1]
    ] + [record("6_0", "continue", STOPPED, STOPPED, diagn=None)]
    files = [write(folder / "base.jsonl", HAND_CHECKED), write(folder / "tuned.jsonl", tuned)]
    write_report(files, names=["base", "tuned"], output_dir=folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A report in which every text is an attack."""
    folder = tmp_path_factory.mktemp("attacked")
    text, grade = asks(0.5, 0.5)
    hostile = record(
        "1_2",
        "continue",
        (f"{text} {ATTACK}", {**grade, "think": ATTACK}),
        session_id=ATTACK,
        diagn=f"diagnosis {ATTACK}",
        info_truth=f"symptom: {ATTACK}",
        policy=f"policy {ATTACK}",
        grader=f"grader {ATTACK}",
        regrades=[[AGAIN]],
    )
    hostile["cid"] += ATTACK
    hostile["messages"] = [{**message, "content": f"said {ATTACK}"} for message in hostile["messages"]]
    folder = folder / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    file = write(folder / "eval.jsonl", [hostile, record("2_0", "stop", RIGHT_STOP)])
    write_report([file], names=[f"name {ATTACK}"], output_dir=folder)
    return folder / "report.html"
