"""The whole pipeline on files of every sort: the same records come out, and the report reads them."""

import json

import pytest
from run_scripts import BUILD, CONVERT, EXTRACT, SAMPLE, SESSION, run
from step_three import run_evaluation, run_rollout

from tuner.learn_to_ask.core.records import GradedTask, Interview, Sample, Session, Task, TaskWithRollouts
from tuner.learn_to_ask.data_prepare.curation.split_files import split_sessions
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, write_jsonl
from tuner.learn_to_ask.report.write import write_report
from tuner.learn_to_ask.training.dataset import stage_dataset, train_file

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
SESSIONS = [{**SESSION, "session_id": str(number), "diagn": [number, "flu"]} for number in range(4)]


def records(path, record_type):
    key = "session_id" if record_type in (Session, Interview) else "cid"
    return list(read_jsonl(path, record_type, unique_key=key, report=ReadReport(), strict=True))


def whole_pipeline(folder, ending):
    """Scripts 1 and 2 as scripts, both halves of script 3 with rules for models; every file ends alike."""
    names = ("logs", "samples", "test", "rollout", "eval")
    logs, samples, *three = (folder / f"{name}{ending}" for name in names)
    write_jsonl(logs, map(Session.model_validate, SESSIONS))
    done = run(folder, EXTRACT, "--engine", "offline", "--input_file", logs, "--output_file", samples)
    assert done.returncode == 0, done.stderr
    done = run(folder, BUILD, "--input_file", samples, "--output_file", three[0])
    assert done.returncode == 0, done.stderr
    assert run_rollout(three) == 0
    assert run_evaluation(three) == 0
    return samples, *three


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return whole_pipeline(tmp_path_factory.mktemp("plain"), ".jsonl")


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_every_step_writes_the_same_records_as_in_plain_files(tmp_path, plain, ending):
    files = whole_pipeline(tmp_path, ending)
    for file, expected, record_type in zip(files, plain, (Sample, Task, TaskWithRollouts, GradedTask), strict=True):
        assert records(file, record_type) == records(expected, record_type)
    # and nothing half-finished is left
    assert {path.name for path in tmp_path.iterdir()} == {f"logs{ending}", *(file.name for file in files)}


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_an_input_that_was_cut_off_is_one_line_before_anything_is_asked(tmp_path, ending):
    logs, samples = tmp_path / f"logs{ending}", tmp_path / f"samples{ending}"
    write_jsonl(logs, [Session.model_validate({**SESSION, "session_id": str(number)}) for number in range(400)])
    logs.write_bytes(logs.read_bytes()[:-10])
    done = run(tmp_path, EXTRACT, "--engine", "offline", "--input_file", logs, "--output_file", samples)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {logs}: ")
    assert (done.stderr.count("\n"), "cut off" in done.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == [logs]


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_the_report_is_that_of_plain_files_examples_included(tmp_path, plain, ending):
    path = tmp_path / f"eval{ending}"
    write_jsonl(path, records(plain[-1], GradedTask))
    for file in (plain[-1], path):
        write_report([file], names=["base"], output_dir=tmp_path / file.suffix)
    ours, expected = (json.loads((tmp_path / end / "report.json").read_text()) for end in (path.suffix, ".jsonl"))
    assert str(ours).replace(str(path), "FILE") == str(expected).replace(str(plain[-1]), "FILE")
    pages = [(tmp_path / end / "report.html").read_text() for end in (path.suffix, ".jsonl")]
    assert pages[0].replace(str(path), "FILE") == pages[1].replace(str(plain[-1]), "FILE")


@pytest.mark.parametrize("ending", ENDINGS)
def test_script_3_goes_on_with_finished_rollouts_of_every_sort(tmp_path, plain, ending):
    files = [tmp_path / f"{name}{ending}" for name in ("test", "rollout", "eval")]
    write_jsonl(files[0], records(plain[1], Task))
    write_jsonl(files[1], records(plain[2], TaskWithRollouts))
    assert run_rollout(files, resume=True) == 0
    assert run_evaluation(files, resume=True) == 0
    assert records(files[2], GradedTask) == records(plain[3], GradedTask)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_trainer_gets_plain_lines_whatever_data_names(tmp_path, ending):
    task = Task(cid="1_0", session_id="1", diagn=[1], messages=SESSION["messages"][:1])
    write_jsonl(tmp_path / "data" / f"train{ending}", [task])
    assert stage_dataset(tmp_path / "data", tmp_path / "taskset") == 1
    staged = json.loads((tmp_path / "taskset" / "train.jsonl").read_text())
    assert staged == task.model_dump(exclude={"session_id", "diagn"})


def test_a_folder_with_two_train_files_is_one_line(tmp_path):
    task = Task(cid="1_0", session_id="1", messages=SESSION["messages"][:1])
    for name in ("train.jsonl", "train.parquet"):
        write_jsonl(tmp_path / name, [task])
    with pytest.raises(UserError, match=r"--data .*: holds train.jsonl and train.parquet; name one of them"):
        train_file(tmp_path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_split_reads_and_writes_every_sort(tmp_path, ending):
    logs, train, test = (tmp_path / f"{name}{ending}" for name in ("logs", "train", "test"))
    texts = ("my knee hurts when i climb the stairs", "i cough all night and cannot sleep", "a rash on both arms since")
    write_jsonl(
        logs,
        [
            Session(session_id=str(number), diagn=number, messages=[{"role": "user", "content": text * 5}])
            for number, text in enumerate(texts)
        ],
    )
    split_sessions(input_file=logs, train_file=train, test_file=test, test_share=0.4, seed=0, similarity=0.8)
    both = records(train, Session) + records(test, Session)
    assert sorted(one.session_id for one in both) == ["0", "1", "2"]


def test_convert_writes_parquet_and_reads_it_again(tmp_path):
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"messages": SESSION["messages"]}) + "\n")
    done = run(tmp_path, CONVERT, "--from", "openai", chats, tmp_path / "logs.parquet")
    assert done.returncode == 0, done.stderr
    (one,) = records(tmp_path / "logs.parquet", Session)
    assert one.messages == SESSION["messages"]
    done = run(tmp_path, CONVERT, "--from", "openai", tmp_path / "logs.parquet", tmp_path / "again.jsonl.gz")
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "again.jsonl.gz", Session)[0].messages == SESSION["messages"]


def test_what_the_published_scripts_read_is_written_as_lines_only(tmp_path):
    write_jsonl(tmp_path / "samples.jsonl", [Sample.model_validate(SAMPLE)])
    done = run(tmp_path, CONVERT, "--to", "upstream", "samples.jsonl", "out.parquet")
    assert (done.returncode, "is only written as JSON Lines" in done.stderr) == (2, True), done.stderr
