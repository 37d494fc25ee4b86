"""The report of evaluation files: figures checked by hand, and every input it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluations import HAND_CHECKED, RIGHT_STOP, STOPPED, UNGRADED, asks, record, write

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.metrics import METRICS
from tuner.learn_to_ask.records import GradedTask
from tuner.learn_to_ask.report.__main__ import choose_names
from tuner.learn_to_ask.report.analysis import TOP_DIAGNOSES, analyse, depth_label
from tuner.learn_to_ask.report.evaluation import EvaluationBuilder, diagnosis_label, patient_turns
from tuner.learn_to_ask.report.examples import MAX_EXAMPLES, choose_examples, rank_examples
from tuner.learn_to_ask.report.markdown import escape, to_markdown
from tuner.learn_to_ask.report.reading import read_evaluation
from tuner.learn_to_ask.report.write import write_report

ROOT = Path(__file__).parents[1]


def evaluation(records, name="base"):
    builder = EvaluationBuilder()
    for line, one in enumerate(records, start=1):
        builder.add(GradedTask.model_validate(one), line=line, offset=0)
    return builder.build(name=name, path=f"{name}.jsonl")


def summary(records):
    [found] = analyse([evaluation(records)]).evaluations
    return found


def values(metrics):
    return {key: estimate.value for key, estimate in metrics.items()}


def compared(before, after):
    """The comparison of two evaluations."""
    [found] = analyse([evaluation(before, "base"), evaluation(after, "tuned")]).comparisons
    return found


# Figures


def test_the_hand_checked_evaluation():
    found = summary(HAND_CHECKED)

    # 13 scored rollouts of continue samples, 9 of which asked; 10 of stop samples; 3 gradings failed.
    assert values(found.metrics) == pytest.approx(
        {
            # 1_0: 1 + 0.5, 1_2: 0 + 0, 2_0: 1, 3_0: 0 + 0, 4_1: 0.5 + 0.5, 5_2: 1 + 0, 6_0: 1 + 0
            "continue_content": 5.5 / 13,
            "continue_content_win_rate": 4 / 13,
            "continue_content_if_correct": 5.5 / 9,
            "continue_content_win_rate_if_correct": 4 / 9,
            "continue_decision_accuracy": 9 / 13,
            # 1_4: 2, 2_2: 1, 3_2: 0, 4_3: 2, 5_4: 1
            "stop_decision_accuracy": 6 / 10,
            "total_decision_accuracy": 15 / 23,
            # 1_0: 1.5, 1_2: 1, 1_4: 1, 2_0: 0.5, 2_2: 1, 4_1: 1, 4_3: 2, 6_0: 1
            "response_format_quality": 9 / 23,
            # 1_0: 6.5, 1_2: 2, 1_4: 7, 2_0: 3.5, 2_2: 4, 4_1: 5, 4_3: 8, 5_2: 4, 5_4: 3, 6_0: 4
            "total_reward": 47 / 23,
        },
        rel=1e-12,
    )
    assert list(found.metrics) == list(METRICS)
    assert (found.samples, found.sessions, found.rollouts, found.failed, found.samples_without_scores) == (
        13, 6, 26, 3, 1,
    )  # fmt: skip
    matrix = found.confusion
    assert (matrix.continue_continue, matrix.continue_stop, matrix.stop_continue, matrix.stop_stop) == (9, 4, 4, 6)


def test_the_hand_checked_evaluation_by_turn_depth_and_by_diagnosis():
    found = summary(HAND_CHECKED)

    # cids that end in _0, and 4_1 with its greeting, have one patient turn; _2 and 4_3 two; _4 three.
    assert [(group.label, group.samples) for group in found.by_depth] == [("1", 6), ("2", 5), ("3", 2)]
    rewards = [group.metrics["total_reward"].value for group in found.by_depth]
    assert rewards == pytest.approx([(6.5 + 3.5 + 5 + 4) / 9, (2 + 4 + 8 + 4) / 10, (7 + 3) / 4])
    # Cold and Flu have 5 samples each, so the alphabet decides.
    assert [(group.label, group.samples) for group in found.by_diagnosis] == [
        ("Cold", 5), ("Flu", 5), ('["Flu", 1]', 2), ("(none)", 1),
    ]  # fmt: skip
    rewards = [group.metrics["total_reward"].value for group in found.by_diagnosis]
    assert rewards == pytest.approx([(6.5 + 2 + 7 + 3.5 + 4) / 9, (4 + 3) / 8, (5 + 8) / 4, 4 / 2])


def test_the_published_layout_shows_the_hand_checked_figures_to_three_decimals():
    rows = {
        line.split("|")[1].strip(): line.split("|")[2].split()[0]
        for line in to_markdown(analyse([evaluation(HAND_CHECKED)])).splitlines()
        if line.startswith(("| Avg", "| Win", "| Total", "| Resp"))
    }

    assert rows == {
        "Avg. continue content": "0.423",
        "Win rate (continue content)": "0.308",
        "Avg. continue content if correct": "0.611",
        "Win rate (continue content) if correct": "0.444",
        "Avg. continue decision accuracy": "0.692",
        "Avg. stop decision accuracy": "0.600",
        "Total decision accuracy": "0.652",
        "Response format quality": "0.391",
        "Total reward": "2.043",
    }


def test_metrics_over_nothing_are_na_and_never_dropped():
    report = analyse([evaluation([record("1_0", "continue", UNGRADED), record("2_0", "continue")])])

    assert set(values(report.evaluations[0].metrics).values()) == {None}
    assert report.evaluations[0].samples_without_scores == 2
    lines = to_markdown(report).splitlines()
    for metric in METRICS.values():
        assert any(line.startswith(f"| {metric.title} | n/a |") for line in lines)


def test_a_single_session_has_means_and_no_interval():
    report = analyse([evaluation([record("1_0", "continue", asks(1.0, 1.0)), record("1_2", "stop", RIGHT_STOP)])])

    reward = report.evaluations[0].metrics["total_reward"]
    assert (reward.value, reward.low, reward.high) == (4.0, None, None)
    assert "4.000 [n/a]" in to_markdown(report)


def test_the_verdict_follows_the_interval_of_the_difference():
    sessions = range(1, 41)
    good = [record(f"{number}_0", "continue", asks(1.0, 1.0)) for number in sessions]
    bad = [record(f"{number}_0", "continue", STOPPED) for number in sessions]
    turns = [record(f"{number}_0", "continue", STOPPED if number % 2 else asks(1.0, 1.0)) for number in sessions]
    other_turns = [record(f"{number}_0", "continue", asks(1.0, 1.0) if number % 2 else STOPPED) for number in sessions]

    def verdict(before, after):
        return compared(before, after).metrics["total_reward"].verdict

    assert verdict(bad, good) == verdict(bad, turns) == "better"
    assert verdict(good, bad) == verdict(good, turns) == "worse"
    assert verdict(turns, other_turns) == verdict(good, good) == "not distinguishable"
    assert compared(bad, good).metrics["stop_decision_accuracy"].verdict == "n/a"


def test_a_comparison_is_over_common_samples_alone():
    # Given: 2_0 is only in the first evaluation, 3_0 only in the second.
    before = [record("1_0", "continue", STOPPED), record("2_0", "continue", asks(1.0, 1.0))]
    after = [record("3_0", "continue", STOPPED), record("1_0", "continue", asks(0.0, 1.0))]

    found = compared(before, after)

    assert (found.common, found.only_in_baseline, found.only_in_other, found.sessions) == (1, 1, 1, 1)
    reward = found.metrics["total_reward"]
    assert (reward.before, reward.after, reward.difference.value, reward.verdict) == (0.0, 2.0, 2.0, "n/a")
    report = analyse([evaluation(before, "base"), evaluation(after, "tuned")])
    assert any("1 are only in base, 1 only in tuned" in note for note in report.notes)


def test_reliability_is_computed_from_repeated_grades():
    again = [{"think": "", "format_score": 1.0, "content_score": 0.5}]
    failed = [{"think": "", "format_score": None, "content_score": None}]
    found = summary(
        [
            record("1_0", "continue", asks(1.0, 1.0), asks(0.5, 1.0), regrades=[again, again]),
            record("2_0", "continue", asks(0.0, 0.0), asks(1.0, 1.0), regrades=[failed, []]),
        ]
    ).reliability

    # Content: 1 and 0.5, 0.5 and 0.5; the third rollout has one grade that can be read.
    assert (found["content_score"].rollouts, found["content_score"].exact) == (2, 0.5)
    assert found["content_score"].mean_absolute_difference == 0.25
    assert (found["format_score"].rollouts, found["format_score"].exact, found["format_score"].alpha) == (2, 1.0, None)


@pytest.mark.parametrize(
    ("roles", "turns"), [("u", 1), ("uu", 1), ("au", 1), ("uau", 2), ("uuaauuau", 3), ("aauauau", 3), ("uaa", 1)]
)
def test_turn_depth_counts_how_often_the_patient_spoke(roles, turns):
    names = {"u": "user", "a": "assistant"}

    assert patient_turns([{"role": names[role], "content": "x"} for role in roles]) == turns


def test_late_turns_share_a_bin():
    depths = (1, 6, 7, 9, 10, 400)
    assert [depth_label(depth) for depth in depths] == ["1", "6", "7-9", "7-9", "10+", "10+"]


@pytest.mark.parametrize(
    ("diagn", "label"),
    [("Flu", "Flu"), (" two\nlines ", "two lines"), (None, "(none)"), ("", "(none)"), (7, "7"), ({"b": 1}, '{"b": 1}')],
)
def test_a_diagnosis_may_be_any_json_value(diagn, label):
    assert diagnosis_label(diagn) == label


def test_rare_diagnoses_are_lumped_at_the_end_in_every_evaluation():
    # Given: diagnosis 0 on most samples, then 1, and so on.
    names = [f"diagnosis {number:02}" for number in range(TOP_DIAGNOSES + 3)]
    records = [
        record(f"{number * 100 + copy}_0", "continue", asks(1.0, 1.0), diagn=name)
        for number, name in enumerate(names)
        for copy in range(len(names) - number)
    ]
    base, tuned = analyse([evaluation(records), evaluation(records[:1], "tuned")]).evaluations

    assert [group.label for group in base.by_diagnosis] == [*names[:TOP_DIAGNOSES], "all others"]
    assert base.by_diagnosis[-1].samples == 3 + 2 + 1
    assert [group.samples for group in tuned.by_diagnosis] == [1] + [0] * TOP_DIAGNOSES


# Files


def test_the_three_files_are_written_and_the_json_holds_no_nan(tmp_path):
    file = write(tmp_path / "eval.jsonl", [record("1_0", "continue", UNGRADED)])

    write_report([file], names=["base"], output_dir=tmp_path / "out")

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=refuse)
    assert found["evaluations"][0]["metrics"]["total_reward"] == {
        "value": None, "low": None, "high": None, "rollouts": 0, "sessions": 0,
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json", "report.md"]


def test_a_numeric_session_id_of_older_files_is_the_same_session(tmp_path):
    older = write(tmp_path / "older.jsonl", [record("1_0", "continue", asks(1.0, 1.0), session_id=1)])
    newer = write(tmp_path / "newer.jsonl", [record("1_0", "continue", STOPPED, session_id="1")])

    report = write_report([older, newer], names=["older", "newer"], output_dir=tmp_path)

    assert report.comparisons[0].common == 1


def refusal(tmp_path, *contents, **options):
    """What the report says of files with these contents."""
    files = []
    for name, content in zip("abc", contents, strict=False):
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text(
            content if isinstance(content, str) else "".join(json.dumps(one) + "\n" for one in content)
        )
    with pytest.raises(UserError) as caught:
        write_report(files, names=list("abc")[: len(files)], output_dir=tmp_path / "out", **options)
    assert "--strict" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())
    return str(caught.value).replace(f"{tmp_path}/", "")


GOOD = record("1_0", "continue", asks(1.0, 1.0), asks(0.5, 1.0))
GRADE = '"content_score": 0.5'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (json.dumps({**GOOD, "cid": "2_0", "grades": GOOD["grades"][:1]}), "2 rollouts but 1 grades"),
        (json.dumps({**GOOD, "cid": "2_0", "rollouts": GOOD["rollouts"][:1]}), "1 rollouts but 2 grades"),
        (json.dumps({**GOOD, "cid": "2_0", "regrades": [[]]}), "2 rollouts but 1 lists of regrades"),
        (json.dumps(GOOD), "duplicate cid '1_0', also on line 1"),
        (json.dumps({**GOOD, "cid": "2_0"}).replace(GRADE, '"content_score": NaN'), "NaN is no JSON value"),
        (json.dumps({**GOOD, "cid": "2_0"}).replace(GRADE, '"content_score": 1e999'), "1e999 is too large"),
        (json.dumps({**GOOD, "cid": "2_0"}).replace(GRADE, '"content_score": 1.5'), "grades.1.content_score"),
        (json.dumps({key: GOOD[key] for key in GOOD if key != "grades"}), "grades: Field required"),
        ("prose", "not JSON"),
    ],
)
def test_a_damaged_line_is_named_with_its_reason(tmp_path, line, reason):
    said = refusal(tmp_path, f"{json.dumps(GOOD)}\n{line}\n")

    assert said.startswith("a.jsonl:2: ")
    assert reason in said


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_an_evaluation_cut_off_in_the_middle_of_a_line_is_recognised(tmp_path, cut):
    whole = json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "cid": "2_0"})

    said = refusal(tmp_path, whole[:-cut])

    assert said.startswith("a.jsonl:2: the evaluation is cut off here")
    assert "--resume" in said


def test_an_unfinished_evaluation_is_recognised_by_its_journal(tmp_path):
    (tmp_path / "eval.jsonl.journal").write_text('{"fingerprint": {}}\n')

    with pytest.raises(
        UserError, match=r"unfinished, .*eval\.jsonl\.journal holds what is done; finish it with .*--resume"
    ):
        read_evaluation(tmp_path / "eval.jsonl", name="a")


@pytest.mark.parametrize(("content", "said"), [(None, "no such file"), ("", "empty"), ("\n\n", "holds no sample")])
def test_a_file_without_samples_is_named(tmp_path, content, said):
    if content is not None:
        (tmp_path / "eval.jsonl").write_text(content)

    with pytest.raises(UserError, match=rf"eval\.jsonl: .*{said}"):
        read_evaluation(tmp_path / "eval.jsonl", name="a")


def test_evaluations_of_different_test_sets_are_refused(tmp_path):
    said = refusal(tmp_path, [GOOD], [record("2_0", "continue", asks(1.0, 1.0))])

    assert said.startswith("b.jsonl:1: no cid of this evaluation is in ")


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "something else"}]},
        {"decision_truth": "stop"},
        {"info_truth": "symptom: fever"},
        {"session_id": "7"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_task_behind_the_same_cid_is_refused_with_both_lines(tmp_path, change):
    other = record("9_0", "continue", asks(1.0, 1.0))

    said = refusal(tmp_path, [other, GOOD], [{**GOOD, **change}, other])

    assert said.startswith("b.jsonl:1: cid '1_0' is another task in a.jsonl:2 ")


@pytest.mark.parametrize(
    ("graders", "said"),
    [
        (("vllm:x", "vllm:y"), "graded by vllm:y, but a.jsonl:1 by vllm:x"),
        (("vllm:x", ""), "graded by unknown, but a.jsonl:1 by vllm:x"),
    ],
)
def test_different_graders_are_refused_unless_allowed_and_then_noted(tmp_path, graders, said):
    contents = [[{**GOOD, "grader": grader}] for grader in graders]
    assert said in refusal(tmp_path, *contents)
    assert "--allow_different_graders" in refusal(tmp_path, *contents)

    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    report = write_report(files, names=["a", "b"], output_dir=tmp_path, allow_different_graders=True)

    assert report.comparisons[0].different_graders
    assert "not graded by the same grader" in (tmp_path / "report.md").read_text()
    assert "not graded by the same grader" in (tmp_path / "report.html").read_text()


def test_two_evaluations_that_do_not_name_their_grader_compare(tmp_path):
    files = [write(tmp_path / f"{name}.jsonl", [{**GOOD, "grader": ""}]) for name in "ab"]

    report = write_report(files, names=["a", "b"], output_dir=tmp_path)

    assert not report.comparisons[0].different_graders
    assert "| unknown |" in (tmp_path / "report.md").read_text()


def test_a_former_report_stays_unless_told_otherwise(tmp_path):
    file = write(tmp_path / "eval.jsonl", [GOOD])
    write_report([file], names=["a"], output_dir=tmp_path)

    with pytest.raises(UserError, match="--overwrite"):
        write_report([file], names=["b"], output_dir=tmp_path)
    write_report([file], names=["b"], output_dir=tmp_path, overwrite=True)

    assert "# Evaluation report: b" in (tmp_path / "report.md").read_text()


def test_a_report_never_replaces_an_evaluation(tmp_path):
    file = write(tmp_path / "report.json", [GOOD])

    with pytest.raises(UserError, match="would replace the evaluation"):
        write_report([file], names=["a"], output_dir=tmp_path, overwrite=True)


# Names, Markdown, examples


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["runs/base.jsonl", "runs/tuned.jsonl"], ["base", "tuned"]),
        (["runs/base/eval.jsonl", "runs/tuned/eval.jsonl"], ["base", "tuned"]),
        (["a/x/eval.jsonl", "b/x/eval.jsonl"], ["a/x/eval.jsonl", "b/x/eval.jsonl"]),
    ],
)
def test_names_are_the_shortest_that_tell_files_apart(files, names):
    assert choose_names([Path(file) for file in files], None) == names


@pytest.mark.parametrize(
    ("files", "names", "said"),
    [
        (["a", "b"], ["x"], "1 for 2 evaluations"),
        (["a", "b"], ["x", "x"], "must differ"),
        (["a", "b"], ["x", " "], "not be empty"),
        (["a", "./a"], None, "same evaluation twice"),
    ],
)
def test_unusable_names_are_refused(files, names, said):
    with pytest.raises(UserError, match=said):
        choose_names([Path(file) for file in files], names)


def test_text_of_users_cannot_break_a_markdown_table():
    assert escape("a|b <script> `x`\n# y") == r"a\|b \<script\> \`x\` \# y"
    records = [record("1_0", "continue", asks(1.0, 1.0), diagn="a | b <img src=x>")]

    text = to_markdown(analyse([evaluation(records)]))

    assert r"| a \| b \<img src=x\> | 1 |" in text


def test_few_samples_are_all_examples_in_the_order_of_the_file(tmp_path):
    file = write(tmp_path / "eval.jsonl", HAND_CHECKED)

    examples = choose_examples([read_evaluation(file, name="base")], [file])

    assert [item["cid"] for item in examples.items] == [one["cid"] for one in HAND_CHECKED]
    assert examples.total == 13
    first = examples.items[0]["evaluations"][0][0]
    assert (first["text"], first["decision"], first["reward"], first["think"]) == (
        "Is it dry?", "continue", 4.0, "because",
    )  # fmt: skip


def test_of_many_samples_the_rare_sorts_and_the_largest_differences_are_examples():
    # Given: 3000 samples that both get right, one stop sample, one on which they differ, one that was not graded
    same = [record(f"{number}_0", "continue", asks(1.0, 1.0)) for number in range(3000)]
    before = [
        *same,
        record("5000_0", "stop", RIGHT_STOP),
        record("6000_0", "continue", STOPPED),
        record("7000_0", "continue", UNGRADED),
    ]
    after = [
        *same,
        record("5000_0", "stop", RIGHT_STOP),
        record("6000_0", "continue", asks(1.0, 1.0)),
        record("7000_0", "continue", UNGRADED),
    ]
    cids = [one["cid"] for one in before]

    ranked = rank_examples([evaluation(before), evaluation(after, "tuned")], cids)

    assert ranked[0] == "6000_0"
    assert {"5000_0", "7000_0"} < set(ranked[:MAX_EXAMPLES])
    assert sorted(ranked) == sorted(cids)
    assert ranked == rank_examples([evaluation(before), evaluation(after, "tuned")], cids)


def test_examples_keep_the_page_small(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.learn_to_ask.report.examples.MAX_BYTES", 3000)
    long = record("2_0", "continue", ("x" * 5000, asks(1.0, 1.0)[1]))
    file = write(tmp_path / "eval.jsonl", [GOOD, long, record("3_0", "stop", RIGHT_STOP)])

    examples = choose_examples([read_evaluation(file, name="base")], [file])

    assert [item["cid"] for item in examples.items] == ["1_0", "3_0"]
    assert examples.total == 3


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


def test_the_command_says_what_it_found_and_where_it_is(tmp_path):
    for name, answer in (("base", STOPPED), ("tuned", asks(1.0, 1.0))):
        write(tmp_path / f"{name}.jsonl", [record(f"{number}_0", "continue", answer) for number in range(40)])

    done = command(tmp_path, "base.jsonl", "tuned.jsonl", "--output_dir", "out")

    assert (done.returncode, done.stderr) == (0, "")
    assert "tuned - base  +4.000 [+4.000, +4.000], better" in done.stdout
    assert "out/report.html" in done.stdout


def test_the_command_refuses_in_one_line_with_exit_code_2(tmp_path):
    write(tmp_path / "eval.jsonl", [GOOD, GOOD])

    done = command(tmp_path, "eval.jsonl")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: eval.jsonl:2: duplicate cid '1_0'")
    assert len(done.stderr.splitlines()) == 1
