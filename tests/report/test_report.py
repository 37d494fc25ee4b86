"""The files of a report, every input it refuses, and its command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluations import GOOD, RIGHT_STOP, STOPPED, UNGRADED, asks, evaluation, record, write

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.report.__main__ import choose_names
from tuner.learn_to_ask.report.analysis import analyse
from tuner.learn_to_ask.report.markdown import escape, to_markdown
from tuner.learn_to_ask.report.reading import read_evaluation
from tuner.learn_to_ask.report.write import write_report

ROOT = Path(__file__).parents[2]


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


PUBLISHED = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 512, "repetition_penalty": 1.2}


@pytest.mark.parametrize(
    ("samplings", "said"),
    [
        (
            (PUBLISHED, {**PUBLISHED, "repetition_penalty": 1.0}),
            "sampled with temperature 1, top_p 0.95, max_tokens 512, repetition_penalty 1, but a.jsonl:1 with "
            "temperature 1, top_p 0.95, max_tokens 512, repetition_penalty 1.2",
        ),
        ((PUBLISHED, {**PUBLISHED, "top_p": None}), "sampled with temperature 1, top_p ?, max_tokens 512"),
        ((PUBLISHED, None), "sampled with unknown, but a.jsonl:1 with temperature 1"),
    ],
)
def test_different_sampling_is_refused_unless_allowed_and_then_noted(tmp_path, samplings, said):
    contents = [[{**GOOD, "sampling": PUBLISHED, "sampling_applied": sampling}] for sampling in samplings]
    assert said in refusal(tmp_path, *contents)
    assert "--allow_different_sampling" in refusal(tmp_path, *contents)

    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    report = write_report(files, names=["a", "b"], output_dir=tmp_path, allow_different_sampling=True)

    assert report.comparisons[0].different_sampling
    assert "not sampled alike" in (tmp_path / "report.md").read_text()
    assert "not sampled alike" in (tmp_path / "report.html").read_text()


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


def test_evaluations_of_two_domains_are_refused(tmp_path):
    domain = {"name": "it_support", "stop_token": "<ticket />", "user": "customer", "assistant": "agent"}
    first = write(tmp_path / "a.jsonl", [record("1_0", "stop", RIGHT_STOP)])
    other = write(tmp_path / "b.jsonl", [record("1_0", "stop", RIGHT_STOP, domain=domain)])
    with pytest.raises(UserError, match=r"b.jsonl:1: is of domain it_support, but .*a.jsonl:1 of medical_en"):
        write_report([first, other], names=["a", "b"], output_dir=tmp_path)


def test_the_report_calls_both_sides_by_the_names_of_their_domain(tmp_path):
    domain = {"name": "it_support", "stop_token": "<ticket />", "user": "customer", "assistant": "agent"}
    stopped = ("<ticket />", RIGHT_STOP[1])
    file = write(tmp_path / "a.jsonl", [record("1_0", "stop", stopped, domain=domain)])
    report = write_report([file], names=["a"], output_dir=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "customer turns" in page and "patient" not in page
    assert report.evaluations[0].confusion.stop_stop == 1
