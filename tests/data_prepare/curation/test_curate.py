"""The command that curates: outputs, summary, report, judge, refusals."""

import html
import json
import os
import re
import runpy
import subprocess
import sys

import pytest
from browser import ATTACK
from fault_server import GOOD, FaultServer
from medical import MEDICAL
from run_scripts import PACKAGE, names_in, read, write
from sessions import END, healthy, record, session

from tuner.learn_to_ask.jsonl import write_jsonl
from tuner.learn_to_ask.prompt import judge_prompt
from tuner.learn_to_ask.sample_data.generate import generate_sessions

NO_MASKING = ("--personal_data", "off")
COMPLAINTS = ("a dry cough", "pain in my left knee", "red and itchy eyes", "no appetite at all", "trouble to sleep")


def curate(folder, monkeypatch, capsys, *flags):
    """Exit code, summary and errors of the command, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["curate", "in.jsonl", "out.jsonl", *map(str, flags)])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_module("tuner.learn_to_ask.data_prepare.curate", run_name="__main__")
    said = capsys.readouterr()
    return leaving.value.code, said.out, said.err


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    return lambda *flags: curate(tmp_path, monkeypatch, capsys, *flags)


def several():
    return [healthy(str(number), what=what) for number, what in enumerate(COMPLAINTS)]


def rows_of(summary):
    """Label -> value of the last block of a summary."""
    lines = summary[summary.rindex("curated: ") :].splitlines()[1:]
    return dict(re.split(r"  +", line.strip(), maxsplit=1) for line in lines)


def kept(folder):
    return [line["session_id"] for line in read(folder / "out.jsonl")]


def test_healthy_sessions_stay_as_they_are(tmp_path, command):
    write(tmp_path / "in.jsonl", *map(record, several()))

    code, summary, errors = command(*NO_MASKING)

    assert (code, errors) == (0, "")
    assert read(tmp_path / "out.jsonl") == [record(one) for one in several()]
    assert rows_of(summary) | {"seconds": ""} == {"sessions": "5", "kept": "5 (100.0%)", "seconds": ""}
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_everything_that_is_dropped_is_counted_by_its_reason_and_shown(tmp_path, command):
    # Given a log with one session for some of the reasons, a line that is no JSON and an empty message
    broken = session("p: my ears hurt a lot", "d: since when?", "p: two days", session_id="broken")
    chinese = session(
        "p: 嗓子疼，发烧三天了", "d: 请问有没有咳嗽？", "p: 有一点，晚上厉害", f"d: {END}", session_id="zh"
    )
    copy = several()[1].model_copy(update={"session_id": "copy"})
    words = [{"role": "user", "content": "thanks"}, *several()[2].messages]
    near = several()[2].model_copy(update={"session_id": "near", "messages": words})
    padded = record(several()[3])
    padded["messages"].insert(1, {"role": "user", "content": " "})
    lines = [*map(record, several()[:3]), padded, *map(record, (broken, chinese, copy, near)), "no JSON"]
    write(tmp_path / "in.jsonl", *lines)
    # When it is curated
    code, summary, errors = command(*NO_MASKING, "--report", "curate.html", "--max_bad_lines=0.2")
    # Then the others stay, and every reason is in the summary
    assert code == 0
    assert errors.splitlines() == ["in.jsonl:9: skipped: not JSON: Expecting value at column 1"]
    assert kept(tmp_path) == ["0", "1", "2", "3"]
    assert rows_of(summary) | {"seconds": ""} == {
        "sessions": "8",
        "dropped: broken off": "1",
        "dropped: another language": "1",
        "dropped: says the same as an earlier session": "1",
        "dropped: says nearly the same as an earlier session": "1",
        "skipped: not JSON": "1",
        "left out: empty message": "1",
        "kept": "4 (50.0%)",
        "report": "curate.html",
        "seconds": "",
    }
    # And in the report, with an example
    page = (tmp_path / "curate.html").read_text(encoding="utf-8")
    for said in (
        "4 of 8 sessions kept",
        "broken: the doctor never ends the interview",
        "zh: language zh (100% sure)",
        "copy: says the same as session 1",
        "% like session 2",
        "my ears hurt a lot",
        "left out: empty message: 1",
        "--end_marker &lt;med_search&gt;",
    ):
        assert said in page


def test_rules_can_be_switched_off_and_thresholds_moved(tmp_path, command):
    broken = session("p: my ears hurt a lot", "d: since when?", "p: two days", session_id="broken")
    copy = several()[1].model_copy(update={"session_id": "copy"})
    write(tmp_path / "in.jsonl", *map(record, [*several(), broken, copy]))

    code, summary, _ = command(
        *NO_MASKING, "--language=any", "--off", "broken_off", "duplicate", "near_duplicate", "--min_messages=4"
    )

    assert code == 0
    assert kept(tmp_path) == ["0", "1", "2", "3", "4", "copy"]
    assert rows_of(summary)["dropped: too short"] == "1"


def test_another_end_marker_is_one(tmp_path, command):
    one = session("p: i have a dry cough", "d: since when?", "p: two days", "d: [end]")
    write(tmp_path / "in.jsonl", record(one))

    assert command(*NO_MASKING, "--end_marker=[end]")[0] == 0
    assert kept(tmp_path) == ["1"]


def test_personal_data_are_masked_or_their_sessions_dropped(tmp_path, command):
    told = session(
        "p: i have a dry cough, call me at (415) 555-2671", "d: since when?", "p: two days", f"d: {END}", session_id="p"
    )
    write(tmp_path / "in.jsonl", *map(record, [*several(), told]))

    code, summary, _ = command("--report", "masked.html")
    assert code == 0
    assert read(tmp_path / "out.jsonl")[-1]["messages"][0]["content"] == "i have a dry cough, call me at [phone number]"
    assert rows_of(summary)["masked: phone number"] == "1"
    assert rows_of(summary)["masked in"] == "1 sessions"

    code, summary, _ = command("--personal_data=drop", "--report", "dropped.html", "--overwrite")
    assert code == 0
    assert kept(tmp_path) == ["0", "1", "2", "3", "4"]
    assert rows_of(summary)["dropped: personal data"] == "1"
    page = (tmp_path / "dropped.html").read_text(encoding="utf-8")
    assert "p: phone number: 1" in page
    assert "555-2671" not in page


def test_a_dropped_session_is_masked_in_the_page_and_its_long_messages_are_cut(tmp_path, command):
    phone = "(415) 555-2671"
    long = f"p: {'my ears hurt a lot ' * 31}{phone} {'and more ' * 400}"  # the number stands across the 600th character
    broken = session(f"p: call {phone}", long, *["d: since when?"] * 45, session_id="broken")
    write(tmp_path / "in.jsonl", *map(record, [*several(), broken]))

    assert command("--report", "curate.html")[0] == 0

    page = (tmp_path / "curate.html").read_text(encoding="utf-8")
    assert "call [phone number]" in page
    assert "415" not in page
    assert "… (4,204 characters)" in page
    assert "and 7 more messages" in page


def test_hostile_text_reaches_the_page_as_text(tmp_path, command):
    attack = session(f"p: {ATTACK}", "d: since when?", session_id=ATTACK, diagn=ATTACK)
    write(tmp_path / "in.jsonl", *map(record, [*several(), attack]))

    assert command(*NO_MASKING, "--report", "curate.html")[0] == 0

    page = (tmp_path / "curate.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "script-src 'none'" in html.unescape(page)
    assert page.count("&lt;script&gt;window.attacked = 1&lt;/script&gt;") >= 4


def test_there_are_at_most_ten_examples_of_a_reason(tmp_path, command):
    broken = [session("p: my ears hurt a lot", "d: since when?", session_id=f"b{number}") for number in range(25)]
    write(tmp_path / "in.jsonl", *map(record, [*several(), *broken]))

    command(*NO_MASKING, "--report", "curate.html", "--off", "too_short")

    assert (tmp_path / "curate.html").read_text(encoding="utf-8").count("<details>") == 10


def test_the_judge_is_asked_about_what_the_rules_left_and_drops_what_teaches_little(tmp_path, command):
    # Given a session that only the judge objects to: nobody answers the question
    rude = session("p: i have a bad toothache", "d: where is it?", f"d: {END}", session_id="rude")
    broken = session("p: my ears hurt a lot", "d: since when?", "p: two days", session_id="broken")
    write(tmp_path / "in.jsonl", *map(record, [*several(), rude, broken]))
    flags = (*NO_MASKING, "--off", "unanswered", "--judge", "--judge_engine=offline")
    # When the rules of the offline judge judge
    code, summary, _ = command(*flags)
    # Then what it says is in a file of its own
    assert code == 0
    assert kept(tmp_path) == ["0", "1", "2", "3", "4"]
    assert rows_of(summary)["dropped: teaches too little, says the judge"] == "1"
    judgements = read(tmp_path / "out.jsonl.judgements.jsonl")
    assert [(each["session_id"], each["score"]) for each in judgements] == [
        *((str(number), 1.0) for number in range(5)),
        ("rude", 0.0),
    ]
    assert judgements[-1]["think"] == "0 of 1 questions are answered."
    # And another threshold does not ask it again
    (tmp_path / "out.jsonl").unlink()
    code, summary, _ = command(*flags, "--min_judge_score=0.01", "--resume")
    assert "out.jsonl.judgements.jsonl: already complete" in summary
    assert (code, kept(tmp_path)) == (0, ["0", "1", "2", "3", "4"])


def test_a_session_without_a_readable_judgement_stays_and_is_counted(tmp_path, command):
    write(tmp_path / "in.jsonl", *map(record, several()))
    scores = [1.0, 0.5, 0.0, None, 0.9]
    lines = [{"session_id": str(number), "score": score, "think": ""} for number, score in enumerate(scores)]
    write(tmp_path / "judged.jsonl", *lines)
    flags = (*NO_MASKING, "--judge", "--judge_engine=offline", "--judgements=judged.jsonl", "--resume")

    code, summary, _ = command(*flags)

    assert (code, kept(tmp_path)) == (0, ["0", "1", "3", "4"])
    assert rows_of(summary)["kept though the judge said nothing readable"] == "1"


def test_the_judge_is_any_engine_and_what_it_does_not_answer_readably_stays(tmp_path, command):
    # Given an endpoint that likes no knees and stammers about eyes
    write(tmp_path / "in.jsonl", *map(record, several()))
    said = {"knee": "<think>dull</think><teaches>0.0</teaches>", "eyes": "well ..."}

    def answer(messages):
        spoken = messages[-1]["content"]
        return next((reply for word, reply in said.items() if word in spoken), "<teaches>1.0</teaches>")

    with FaultServer(lambda call: GOOD, answer=answer) as server:
        endpoint = (f"--judge_base_url={server.base_url}", "--judge_model=judge", "--judge_concurrency=1")
        # When it judges
        code, summary, _ = command(*NO_MASKING, "--judge", *endpoint, "--max_retries=1")
        # Then it was asked twice where it stammered, and one failure in five is an exit code
        assert server.received == 6
        assert {call.body["messages"][0]["content"] for call in server.calls} == {judge_prompt(MEDICAL)}
    assert code == 1
    assert kept(tmp_path) == ["0", "2", "3", "4"]
    assert rows_of(summary)["kept though the judge said nothing readable"] == "1"


def test_judgements_of_other_sessions_are_refused(tmp_path, command):
    write(tmp_path / "in.jsonl", *map(record, several()))
    write(tmp_path / "judged.jsonl", {"session_id": "other", "score": 1.0})

    code, _, errors = command(*NO_MASKING, "--judge", "--judge_engine=offline", "--judgements=judged.jsonl", "--resume")

    assert code == 2
    assert errors == "error: --judgements judged.jsonl: says nothing of session 0; pass --overwrite to judge again\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--end_marker="], "--end_marker: is empty"),
        (["--names_model=en_core_web_sm"], "--names_model: is not used with --personal_data off"),
        (["--language=english"], "--language english: not known"),
        (["--report=in.jsonl"], "--report in.jsonl: is another file of this run too"),
        (["--judge_base_url=http://127.0.0.1:9/v1"], "--judge_base_url: nobody judges; pass --judge as well"),
        (["--judge"], "--judge_model_path or --judge_base_url: name a model"),
        (["--report=old.html"], "--report old.html: exists; pass --overwrite"),
        (["--judge", "--judge_engine=offline", "--judgements=old.html"], "--judgements old.html: exists"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_named_before_anything_is_written(tmp_path, command, flags, said):
    write(tmp_path / "in.jsonl", *map(record, several()))
    (tmp_path / "old.html").write_text("old")

    code, _, errors = command(*NO_MASKING, *flags)

    assert code == 2
    assert errors.startswith(f"error: {said}")
    assert len(errors.splitlines()) == 1
    assert names_in(tmp_path) == ["in.jsonl", "old.html"]


def test_when_nothing_is_left_the_report_says_why(tmp_path, command):
    write(tmp_path / "in.jsonl", record(session("p: hi", "d: hello")))

    code, _, errors = command(*NO_MASKING, "--report", "curate.html")

    assert code == 2
    assert errors == "error: IN in.jsonl: no session is left, 1 were dropped as too_short; loosen what drops them\n"
    assert "too short" in (tmp_path / "curate.html").read_text()
    assert not (tmp_path / "out.jsonl").exists()


def test_a_finished_output_is_refused_kept_or_replaced(tmp_path, command):
    write(tmp_path / "in.jsonl", *map(record, several()))
    (tmp_path / "out.jsonl").write_text("old\n")

    assert command(*NO_MASKING)[2].startswith("error: OUT out.jsonl: exists; pass --overwrite")
    assert command(*NO_MASKING, "--resume")[:2] == (0, "out.jsonl: already complete\n")
    assert (tmp_path / "out.jsonl").read_text() == "old\n"
    assert command(*NO_MASKING, "--overwrite")[0] == 0
    assert len(kept(tmp_path)) == 5


@pytest.mark.slow
def test_the_sample_logs_stay_whole_with_all_defaults(tmp_path):
    sample = PACKAGE / "sample_data" / "train_origin.jsonl"

    output, _ = in_a_process(sample, tmp_path / "out.jsonl", "--strict")

    assert "masked" not in output
    lines = [json.loads(line) for line in sample.read_text(encoding="utf-8").splitlines()]
    assert read(tmp_path / "out.jsonl") == [{**line, "session_id": str(line["session_id"])} for line in lines]


def in_a_process(*arguments):
    """What the command prints, run as a user does, and the most memory it held, in KiB."""
    command = [sys.executable, "-m", "tuner.learn_to_ask.data_prepare.curate", *map(str, arguments)]
    with subprocess.Popen(command, cwd=PACKAGE.parents[1], stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return output, usage.ru_maxrss


@pytest.mark.parametrize("flag", ["--min_messages=-1", "--max_spam_marks=nan", "--similarity=0", "--similarity=nan"])
def test_a_threshold_that_is_none_is_refused(tmp_path, command, flag):
    code, _, errors = command(flag)

    assert code == 2
    assert f"argument {flag.partition('=')[0]}: " in errors


@pytest.mark.slow
def test_a_session_more_takes_about_a_kilobyte_more_memory(tmp_path):
    peaks = []
    for count in (2_000, 20_000):
        write_jsonl(tmp_path / "in.jsonl", generate_sessions(MEDICAL, count=count, first_id=1, seed=7))
        files = (tmp_path / "in.jsonl", tmp_path / "out.jsonl")
        peaks.append(in_a_process(*files, *NO_MASKING, "--language=any", "--overwrite")[1])

    assert peaks[1] - peaks[0] < 18_000 * 1.5  # in KiB: signatures are compared in copies
