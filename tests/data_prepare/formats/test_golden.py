"""Every format by a small file made by hand: what comes out, and what is said of what was left out."""

from pathlib import Path

import pytest
from run_scripts import CONVERT, extract, run, summary_of

from tuner.learn_to_ask.report.reading import read_evaluation

GOLDEN = Path(__file__).parent / "golden"
ROLES = ("--user_roles", "patient", "--assistant_roles", "doctor,nurse")
COLUMNS = ("--session_column", "visit", "--role_column", "speaker", "--text_column", "text", "--time_column", "sent_at")


@pytest.mark.parametrize(
    ("file", "flags", "said"),
    [
        pytest.param(
            "openai.jsonl",
            (),
            {
                "rows": 4,
                "left out: system message": 1,
                "left out: image_url part": 1,
                "left out: tool call": 1,
                "left out: tool message": 1,
                "left out: empty message": 1,
                "left out: input_audio part": 1,
                "named after its place: session": 2,
                "put in the order of its times: session": 1,
                "sessions": 4,
            },
        ),
        pytest.param(
            "sharegpt.json",
            (),
            {
                "rows": 2,
                "left out: system message": 1,
                "left out: function_call message": 1,
                "left out: observation message": 1,
                "named after its place: session": 1,
                "sessions": 2,
            },
        ),
        pytest.param(
            "table.csv",
            (*COLUMNS, *ROLES),
            {
                "rows": 8,
                "left out: empty message": 1,
                "left out: system message": 1,
                "put in the order of its times: session": 1,
                "sessions": 2,
            },
        ),
        pytest.param(
            "langfuse.json",
            (),
            {
                "rows": 1,
                "left out: system message": 1,
                "passed over: spans inside others or without messages": 2,
                "sessions": 2,
            },
        ),
        pytest.param(
            "otel.jsonl",
            (),
            {
                "rows": 2,
                "left out: reasoning part": 1,
                "passed over: spans inside others or without messages": 2,
                "sessions": 1,
            },
        ),
        pytest.param(
            "agentscope.json",
            (),
            {
                "rows": 1,
                "left out: hint": 1,
                "left out: thinking part": 1,
                "left out: tool_use part": 1,
                "left out: system message": 1,
                "named after its place: session": 1,
                "sessions": 1,
            },
        ),
        pytest.param("agentjet.jsonl", (), {"rows": 1, "tasks": 1}),
        pytest.param(
            "upstream_processed.jsonl",
            (),
            {
                "rows": 5,
                "passed over: rounds in which the patient says nothing": 1,
                "put together from earlier rounds: context": 1,
                "extraction failed: info_set": 1,
                "samples": 4,
            },
        ),
        pytest.param(
            "upstream_tasks.jsonl", (), {"rows": 2, "kept, though the doctor spoke last: context": 1, "tasks": 2}
        ),
        pytest.param("upstream_rollouts.jsonl", (), {"rows": 1, "tasks with rollouts": 1}),
        pytest.param(
            "upstream_evaluation.jsonl",
            (),
            {"rows": 1, "not a number, hence a failed grading: grade": 1, "graded tasks": 1},
        ),
    ],
    ids=lambda value: value.partition(".")[0] if isinstance(value, str) else "",
)
def test_a_file_of_every_format_becomes_what_it_should(tmp_path, file, flags, said):
    name = file.partition(".")[0]

    result = run(tmp_path, CONVERT, "--from", name, GOLDEN / file, "out.jsonl", *flags)

    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "out.jsonl").read_text() == (GOLDEN / f"{name}.expected.jsonl").read_text()
    assert summary_of(result) == {key: str(value) for key, value in said.items()}


def test_script_1_takes_the_sessions(tmp_path):
    assert run(tmp_path, CONVERT, "--from", "openai", GOLDEN / "openai.jsonl", "in.jsonl").returncode == 0
    result = extract(tmp_path)
    assert result.returncode == 0
    assert summary_of(result)["sessions"] == "4"


def test_the_report_takes_the_evaluation():
    evaluation = read_evaluation(GOLDEN / "upstream_evaluation.expected.jsonl", name="published")
    assert [sample.cid for sample in evaluation.samples] == ["5_1"]
