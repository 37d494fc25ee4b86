"""The report of whole interviews: figures worked out by hand, notes, every input it refuses, and its files."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from evaluations import GOOD, write
from interviews import QUESTIONS, STOP, interview, write_interviews
from pydantic import TypeAdapter

from tuner.learn_to_ask.core.records import Fact, SamplingValues
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.bootstrap import Estimate
from tuner.learn_to_ask.evaluation.interview_metrics import METRICS
from tuner.learn_to_ask.jsonl import write_jsonl
from tuner.learn_to_ask.report.interviews import examples
from tuner.learn_to_ask.report.interviews.analysis import verdict
from tuner.learn_to_ask.report.interviews.columns import read_interviews
from tuner.learn_to_ask.report.interviews.results import InterviewReport
from tuner.learn_to_ask.report.interviews.tables import interviews_text
from tuner.learn_to_ask.report.interviews.write import INTERVIEW_FILES, prepare_interview_report

ROOT = Path(__file__).parents[2]
NATURE, SEVERITY, TRIGGER = QUESTIONS
ALL = (*QUESTIONS, STOP)


def report_of(folder, *policies, names=("base", "tuned", "third"), **options):
    """Of policies, each a list of interviews."""
    files = [write_interviews(folder / f"{name}.jsonl", held) for name, held in zip(names, policies, strict=False)]
    prepared = prepare_interview_report(files, names=names[: len(files)], output_dir=folder / "out", **options)
    prepared.write()
    return prepared.report


def many(*said, count=40):
    """The same interview with many users."""
    return [interview(*said, session_id=str(number)) for number in range(count)]


def values(curve):
    return [one.value for one in curve]


def test_means_curves_and_paired_differences_worked_out_by_hand(tmp_path):
    # given two sessions with three facts; the logged expert asks for two in one turn, then stops
    logged = ("Is the stool watery, and did you eat something spicy?", STOP)
    base = [interview(*ALL, session_id="1", logged=logged), interview(STOP, session_id="2", logged=logged)]
    tuned = [interview(*ALL, session_id="1", logged=logged), interview(NATURE, STOP, session_id="2", logged=logged)]

    report = report_of(tmp_path, base, tuned)

    first, second = report.policies
    assert (first.metrics["coverage"].value, second.metrics["coverage"].value) == (0.5, pytest.approx(2 / 3))
    assert (first.metrics["turns"].value, second.metrics["turns"].value) == (1.5, 2.0)
    # after turns 0 to 6, over both sessions; session 2 of base finds nothing, that of tuned one fact
    assert values(first.curve) == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 3 / 6, 3 / 6, 3 / 6])
    assert values(second.curve) == pytest.approx([0, 2 / 6, 3 / 6, 4 / 6, 4 / 6, 4 / 6, 4 / 6])
    assert values(report.logged.curve) == pytest.approx([0, *[2 / 3] * 6])
    assert report.logged.metrics["too_early"].value == 1.0
    [comparison] = report.comparisons
    coverage = comparison.metrics["coverage"]
    assert (coverage.before, coverage.after) == (0.5, pytest.approx(2 / 3))
    assert coverage.difference.value == pytest.approx(1 / 6)
    assert comparison.metrics["turns"].difference.value == 0.5
    # nothing was asked in session 2 of base: the question metrics are about one session there
    assert comparison.metrics["repeated"].difference.sessions == 1
    assert comparison.metrics["repeated"].verdict == "n/a"


def test_only_common_sessions_are_compared_and_the_logged_line_is_over_all(tmp_path):
    base = [interview(STOP, session_id=each, logged=(NATURE, STOP)) for each in "123"]
    tuned = [
        interview(*ALL, session_id="3", logged=(NATURE, STOP)),
        interview(STOP, session_id="4", logged=(*QUESTIONS, STOP)),
    ]

    report = report_of(tmp_path, base, tuned)

    [comparison] = report.comparisons
    assert (comparison.common, comparison.only_in_baseline, comparison.only_in_other) == (1, 2, 1)
    assert (comparison.metrics["coverage"].before, comparison.metrics["coverage"].after) == (0.0, 1.0)
    assert report.logged.sessions == 4
    assert report.logged.metrics["coverage"].value == pytest.approx((3 * 1 / 3 + 1) / 4)
    assert any(
        "compared on the 1 sessions that both have; 2 are only in base, 1 only in tuned" in one for one in report.notes
    )


def test_every_later_file_is_compared_with_the_first(tmp_path):
    report = report_of(tmp_path, many(STOP), many(*ALL), many(NATURE, STOP))

    assert [(one.baseline, one.name) for one in report.comparisons] == [("base", "tuned"), ("base", "third")]
    assert report.comparisons[1].metrics["coverage"].difference.value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("low", "high", "better", "said"),
    [
        (0.1, 0.2, "more", "better"),
        (0.1, 0.2, "less", "worse"),
        (0.1, 0.2, None, "more"),
        (-0.2, -0.1, "more", "worse"),
        (-0.2, -0.1, "less", "better"),
        (-0.2, -0.1, None, "less"),
        (-0.1, 0.1, "more", "not distinguishable"),
        (0.0, 0.1, "more", "not distinguishable"),
        (0.0, 0.0, None, "not distinguishable"),
        (None, None, "more", "n/a"),
    ],
)
def test_a_verdict_needs_an_interval_without_0_and_knows_what_is_better(low, high, better, said):
    assert verdict(Estimate(0.0, low, high, 2, 2), better=better) == said


def test_turns_and_what_the_log_cannot_answer_are_neither_better_nor_worse():
    assert [key for key, metric in METRICS.items() if metric.better is None] == ["turns", "unanswerable"]


def test_a_policy_that_finds_all_is_better_and_asks_more(tmp_path):
    report = report_of(tmp_path, many(STOP), many(*ALL))

    verdicts = {key: one.verdict for key, one in report.comparisons[0].metrics.items()}
    assert [key for key, said in verdicts.items() if said == "better"] == [
        "coverage", "coverage_area", "in_time", "too_early",
    ]  # fmt: skip
    assert verdicts["turns"] == "more"
    assert report.notes == []


def test_it_is_said_when_coverage_did_not_rise_and_what_changed_instead(tmp_path):
    # base asks for one fact and goes on until it is broken off, tuned asks for the same one and stops
    endless = (NATURE, "ok", "well", "Do you smoke?", "hm", "I see")
    report = report_of(tmp_path, many(*endless), many(NATURE, STOP))

    [note] = report.notes
    assert note == (
        "tuned does not find out distinguishably more than base in whole interviews. Coverage at stop changed by "
        "+0.000 [+0.000, +0.000]. Training rewards single next messages after dialogues of the log, not an interview "
        "that the policy leads. What did change in how it stops and in its format: stopped too early 0.000 → 1.000 "
        "(worse); never stopped 1.000 → 0.000 (better); format breaches 0.667 → 0.000 (better)."
    )
    assert "does not find out distinguishably more" in (tmp_path / "out" / "interviews.md").read_text()
    assert "does not find out distinguishably more" in (tmp_path / "out" / "interviews.html").read_text()


@pytest.mark.parametrize(
    ("base", "tuned", "count", "said"),
    [
        (ALL, (STOP,), 40, "tuned holds worse interviews than base: it finds out less by the time it stops"),
        (ALL, ALL, 40, "Nor did how it stops or its format change distinguishably."),
        (ALL, (STOP,), 1, "tuned cannot be told apart from base: too few sessions"),
    ],
)
def test_the_note_follows_the_verdict_on_coverage(tmp_path, base, tuned, count, said):
    report = report_of(tmp_path, many(*base, count=count), many(*tuned, count=count))

    assert said in report.notes[0]


def test_few_sessions_are_noted(tmp_path):
    report = report_of(tmp_path, many(*ALL, count=29))

    assert report.notes == [
        "base: 29 sessions. Intervals from fewer than 30 sessions are rough, and that of a metric that never varies "
        "has no width."
    ]


SCRIPTS = [
    ALL,
    (STOP,),
    (NATURE, STOP),
    (NATURE, NATURE, "ok", SEVERITY, "hm", "well"),
    (*QUESTIONS, "Do you smoke?", STOP),
]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_lines_changes_nothing(tmp_path, seed):
    rng = random.Random(seed)
    policies = [
        [interview(*rng.choice(SCRIPTS), session_id=str(each), logged=rng.choice(SCRIPTS)) for each in range(12)]
        for _ in range(2)
    ]
    policies[1] = policies[1][2:]
    before = report_of(tmp_path, *policies)
    texts = [(tmp_path / "out" / name).read_text() for name in INTERVIEW_FILES]

    after = report_of(tmp_path, *(rng.sample(held, len(held)) for held in policies), overwrite=True)

    assert after == before
    assert [(tmp_path / "out" / name).read_text() for name in INTERVIEW_FILES] == texts


@pytest.mark.parametrize("seed", range(5))
def test_no_coverage_curve_falls(tmp_path, seed):
    rng = random.Random(seed)
    held = [interview(*rng.choice(SCRIPTS), session_id=str(each), logged=rng.choice(SCRIPTS)) for each in range(12)]

    report = report_of(tmp_path, held)

    for curve in (report.policies[0].curve, report.logged.curve):
        assert values(curve) == sorted(values(curve))
        assert values(curve)[0] == 0.0
        assert len(curve) == 7


# Refusals


def refusal(tmp_path, *contents, **options):
    """What is said of files with these contents; nothing is written."""
    files = []
    for name, content in zip("abc", contents, strict=False):
        files.append(tmp_path / f"{name}.jsonl")
        if isinstance(content, str):
            files[-1].write_text(content)
        else:
            write_interviews(files[-1], content)
    with pytest.raises(UserError) as caught:
        prepare_interview_report(files, names=list("abc")[: len(files)], output_dir=tmp_path / "out", **options)
    assert not list((tmp_path / "out").iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{tmp_path}/", "")


ONE = interview(*ALL)
LINE = ONE.model_dump_json() + "\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a.jsonl: the file is empty"),
        (
            "\n \n",
            "a.jsonl: holds no session; finish it with tuner.learn_to_ask.evaluation.interview, the same flags and",
        ),
        (LINE + LINE[:-20], "a.jsonl:2: the interview file is cut off here, in the middle of a line"),
        (LINE + "prose\n", "a.jsonl:2: not JSON"),
        (
            LINE + LINE.replace('"facts":[0]', '"facts":[7]', 1),
            "a.jsonl:2: the line: a turn names facts [7], there are 3",
        ),
        (
            LINE + "\n" + LINE,
            "a.jsonl:3: duplicate session_id '1', also on line 1; a session may stand in an interview",
        ),
    ],
)
def test_an_unsound_file_is_named_with_its_line(tmp_path, content, said):
    assert refusal(tmp_path, content).startswith(said)


def test_unfinished_interviews_are_recognised_by_their_journal(tmp_path):
    (tmp_path / "a.jsonl.journal").write_text('{"fingerprint": {}}\n')

    with pytest.raises(
        UserError, match=r"a\.jsonl: the interview file is unfinished, .*a\.jsonl\.journal holds .*--resume"
    ):
        read_interviews(tmp_path / "a.jsonl", name="a")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.jsonl: no such file"):
        read_interviews(tmp_path / "a.jsonl", name="a")


def changed(one, **changes):
    return one.model_copy(update=changes)


IT = ONE.domain.model_copy(update={"name": "it_support"})


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (changed(ONE, session_id="2", domain=IT), "a.jsonl:2: is of domain it_support, the lines before of another"),
        (changed(ONE, session_id="2", max_turns=7), "a.jsonl:2: is broken off after 7 turns, the lines before after 6"),
    ],
)
def test_a_file_is_of_one_domain_and_one_turn_limit(tmp_path, second, said):
    assert refusal(tmp_path, [ONE, second]).startswith(said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"domain": IT}, "b.jsonl:1: is of domain it_support, but a.jsonl:1 of medical_en"),
        ({"session_id": "7"}, "b.jsonl:1: no session of this file is in a.jsonl"),
        ({"max_turns": 7}, "b.jsonl:1: broken off after 7 turns, but a.jsonl:1 after 6"),
        (
            {"messages": [{"role": "user", "content": "hi"}]},
            "b.jsonl:1: session '1' has another opening or other facts in a.jsonl:1",
        ),
        (
            {"facts": [Fact(item="x: y", said="y"), *ONE.facts[1:]]},
            "b.jsonl:1: session '1' has another opening or other",
        ),
        (
            {"user": "llm:vllm:x"},
            "b.jsonl:1: answered by llm:vllm:x, but a.jsonl:1 by rules; hold both with the same --user",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_interviews_that_do_not_compare_are_refused_with_both_places(tmp_path, change, said):
    assert refusal(tmp_path, [ONE], [changed(ONE, **change)]).startswith(said)


def test_the_line_that_is_named_is_that_of_the_file_not_that_of_the_order(tmp_path):
    other = interview(*ALL, session_id="2")
    wrong = changed(ONE, messages=[{"role": "user", "content": "hi"}])

    said = refusal(tmp_path, [other, ONE], [other, interview(STOP, session_id="9"), wrong])

    assert said.startswith("b.jsonl:3: session '1' has another opening or other facts in a.jsonl:2")


def test_different_users_are_refused_unless_allowed_and_then_noted(tmp_path):
    pair = [ONE], [changed(ONE, user="llm:vllm:x")]
    assert "--allow_different_users" in refusal(tmp_path, *pair)
    assert "--allow_different_users" in refusal(tmp_path, *pair, allow_different_sampling=True)

    report = report_of(tmp_path, *pair, allow_different_users=True)

    assert report.comparisons[0].different_users
    assert not report.comparisons[0].different_sampling
    for name in ("interviews.md", "interviews.html"):
        assert "not answered by the same user" in (tmp_path / "out" / name).read_text()


def test_different_sampling_is_refused_unless_allowed_and_then_noted(tmp_path):
    greedy = SamplingValues(temperature=0.0, top_p=None, max_tokens=48, repetition_penalty=None)
    pair = [ONE], [changed(ONE, sampling_applied=greedy)]
    assert "--allow_different_sampling" in refusal(tmp_path, *pair)
    assert refusal(tmp_path, *pair, allow_different_users=True).startswith(
        "b.jsonl:1: sampled with temperature 0, top_p ?, max_tokens 48, repetition_penalty ?, but a.jsonl:1 with temp"
    )

    report = report_of(tmp_path, *pair, allow_different_sampling=True)

    assert report.comparisons[0].different_sampling
    assert "not sampled alike" in (tmp_path / "out" / "interviews.md").read_text()


def test_logged_questions_that_were_answered_differently_are_noted_and_taken_from_the_first_file(tmp_path):
    base = [interview(STOP, session_id="1", logged=(NATURE, STOP)), interview(STOP, session_id="2")]
    tuned = [interview(STOP, session_id="1", logged=(*QUESTIONS, STOP)), interview(STOP, session_id="2")]

    report = report_of(tmp_path, base, tuned)

    assert report.logged.answered_differently == 1
    assert report.logged.metrics["coverage"].value == pytest.approx(1 / 6)
    assert any("in 1 of 2 sessions they were not answered alike" in note for note in report.notes)


# Files


def test_the_three_files_are_written_and_the_json_is_the_report(tmp_path):
    report = report_of(tmp_path, many(*ALL, count=3), [*many(STOP, count=2), interview(NATURE, session_id="2")])

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(INTERVIEW_FILES)
    text = (tmp_path / "out" / "interviews.json").read_text()
    assert TypeAdapter(InterviewReport).validate_json(text) == report
    assert "NaN" not in text


def test_markdown_and_terminal_show_the_same_cells(tmp_path):
    report = report_of(tmp_path, many(STOP), many(*ALL))

    markdown = (tmp_path / "out" / "interviews.md").read_text()
    assert "| metric | base | tuned | logged questions | tuned − base | verdict |" in markdown
    assert (
        "| coverage at stop | 0.000 [0.000, 0.000] | 1.000 [1.000, 1.000] | 0.000 [0.000, 0.000] | +1.000 [+1.000, "
        "+1.000] | better |" in markdown
    )
    lines = interviews_text(report).splitlines()
    assert lines[0].split() == "metric base tuned logged questions tuned − base verdict".split()
    assert len(lines) == 1 + len(METRICS)
    assert lines[1].startswith("coverage at stop  ") and lines[1].endswith("better")
    assert len({line.index("]") for line in lines[1:] if "n/a" not in line}) == 1


def test_text_of_users_cannot_break_the_markdown(tmp_path):
    domain = ONE.domain.model_copy(update={"user": "a|b <script>", "assistant": "`x`\n# y"})

    report_of(tmp_path, [changed(ONE, domain=domain, policy="p | <img src=x>")])

    markdown = (tmp_path / "out" / "interviews.md").read_text()
    assert not re.search(r"(?<!\\)<", markdown)
    assert "\n# y" not in markdown
    assert r"p \| \<img src=x\>" in markdown


def test_a_former_report_stays_unless_told_otherwise_and_no_interviews_are_replaced(tmp_path):
    report_of(tmp_path, [ONE])
    with pytest.raises(UserError, match="--overwrite"):
        report_of(tmp_path, [ONE])
    report_of(tmp_path, [ONE], overwrite=True)

    file = write_interviews(tmp_path / "interviews.json", [ONE])
    with pytest.raises(UserError, match="would replace the interviews"):
        prepare_interview_report([file], names=["a"], output_dir=tmp_path, overwrite=True)


def test_of_many_sessions_the_page_has_the_largest_differences_and_every_sort_of_end(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "MAX_EXAMPLES", 8)
    base = [*many(STOP), interview(*ALL, session_id="late"), interview(NATURE, session_id="never")]
    tuned = [
        *many(STOP),
        interview(*QUESTIONS, "Do you smoke?", STOP, session_id="late"),
        interview(*ALL, session_id="never"),
    ]
    files = [
        read_interviews(write_interviews(tmp_path / f"{name}.jsonl", held), name=name)
        for name, held in (("base", base), ("tuned", tuned))
    ]

    chosen = examples.choose_interviews(files)

    assert (chosen.total, len(chosen.items)) == (42, 8)
    assert {"late", "never"} <= {item["session"] for item in chosen.items}


def test_a_session_of_one_file_only_can_be_read_and_the_other_column_is_empty(tmp_path):
    files = [
        read_interviews(write_interviews(tmp_path / f"{name}.jsonl", held), name=name)
        for name, held in (("base", [ONE]), ("tuned", [ONE, interview(NATURE, session_id="2")]))
    ]

    items = examples.choose_interviews(files).items

    assert [item["session"] for item in items] == ["1", "2"]
    assert items[1]["courses"][0] is None
    assert items[1]["courses"][1]["turns"][0]["new"] == [0]
    assert items[1]["courses"][1]["outcome"] == "broken off"


# The command


def command(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "tuner.learn_to_ask.report", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        check=False,
    )


@pytest.fixture
def folder(tmp_path):
    """Two evaluations and two interview files."""
    for name, said in (("base", (STOP,)), ("tuned", ALL)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "eval.jsonl", [GOOD])
        write_interviews(tmp_path / name / "interviews.jsonl", many(*said))
    return tmp_path


EVALUATIONS = ("base/eval.jsonl", "tuned/eval.jsonl")
INTERVIEWS = ("--interviews", "base/interviews.jsonl", "tuned/interviews.jsonl")


def test_the_command_writes_both_reports_and_they_are_linked(folder):
    done = command(folder, *EVALUATIONS, *INTERVIEWS, "--output_dir", "out")

    assert (done.returncode, done.stderr) == (0, "")
    assert "Total reward" in done.stdout
    assert "coverage at stop" in done.stdout and "out/interviews.html" in done.stdout
    markdown = (folder / "out" / "report.md").read_text()
    assert markdown.index("## Metrics") < markdown.index("## Whole interviews") < markdown.index("## What is compared")
    assert "| coverage at stop | 0.000 [0.000, 0.000] | 1.000 [1.000, 1.000] |" in markdown
    assert "[interviews.md](interviews.md)" in markdown
    assert '<a href="interviews.html">' in (folder / "out" / "report.html").read_text()


def test_the_command_needs_no_evaluations(folder):
    done = command(folder, *INTERVIEWS, "--names", "before", "after")

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (folder / "tuned").iterdir()) == [
        "eval.jsonl", "interviews.html", "interviews.json", "interviews.jsonl", "interviews.md",
    ]  # fmt: skip
    assert "# Whole interviews: before, after" in (folder / "tuned" / "interviews.md").read_text()


def test_without_interviews_the_report_does_not_speak_of_them(folder):
    assert command(folder, *EVALUATIONS, "--output_dir", "out").returncode == 0

    assert "nterviews.html" not in (folder / "out" / "report.html").read_text()
    assert "Whole interviews" not in (folder / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            (*EVALUATIONS, *INTERVIEWS[:2]),
            "error: --interviews base/interviews.jsonl: 1 for 2 evaluations; give one for",
        ),
        ((*EVALUATIONS, *INTERVIEWS[:2], INTERVIEWS[1]), "the same interview file twice"),
        (("base/eval.jsonl", "missing.jsonl", *INTERVIEWS), "error: missing.jsonl: no such file"),
        (
            (*EVALUATIONS, "--interviews", "base/interviews.jsonl", "missing.jsonl"),
            "error: missing.jsonl: no such file",
        ),
        ((), "name evaluation files, or interview files with --interviews"),
    ],
)
def test_the_command_refuses_before_anything_is_written(folder, arguments, said):
    done = command(folder, *arguments, "--output_dir", "out")

    assert done.returncode == 2
    assert said in done.stderr
    assert not (folder / "out").exists() or not list((folder / "out").iterdir())


def test_a_former_report_of_either_kind_stops_both(folder):
    assert command(folder, *EVALUATIONS, "--output_dir", "out").returncode == 0

    done = command(folder, *EVALUATIONS, *INTERVIEWS, "--output_dir", "out")

    assert (done.returncode, "--overwrite" in done.stderr) == (2, True)
    assert not (folder / "out" / "interviews.html").exists()


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_the_report_is_that_of_plain_files_whatever_their_sort(tmp_path, ending):
    plain, other = tmp_path / "a.jsonl", tmp_path / f"a{ending}"
    for file in (plain, other):
        write_jsonl(file, [ONE, interview(NATURE, session_id="2")])
        prepare_interview_report([file], names=["a"], output_dir=tmp_path / file.suffix).write()

    ours, expected = (tmp_path / file.suffix / "interviews.html" for file in (other, plain))
    assert ours.read_text().replace(str(other), "FILE") == expected.read_text().replace(str(plain), "FILE")
