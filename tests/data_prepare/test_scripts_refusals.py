"""The three scripts say in one clear line what is wrong, and leave what was there."""

import pytest
from run_scripts import (
    BUILD,
    EVALUATE,
    EXTRACT,
    MODEL_FREE,
    SAMPLE,
    SESSION,
    STEPS,
    TASK,
    build,
    error_of,
    evaluate,
    extract,
    names_in,
    run,
    run_as_a_user_does,
    write,
)


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_a_missing_input_is_named(tmp_path, step, good):
    assert error_of(step(tmp_path, run=run_as_a_user_does)).endswith("in.jsonl: no such file")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_an_empty_input_is_named(tmp_path, step, good):
    (tmp_path / "in.jsonl").touch()
    assert error_of(step(tmp_path)).endswith("in.jsonl: the file is empty")
    assert names_in(tmp_path) == ["in.jsonl"]


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_an_existing_output_is_left_alone_unless_it_may_be_overwritten(tmp_path, step, good):
    write(tmp_path / "in.jsonl", good)
    write(tmp_path / "out.jsonl", "precious")
    error = error_of(step(tmp_path))
    assert "out.jsonl: exists" in error
    assert "--overwrite" in error
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "precious\n"
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_an_output_that_is_a_folder_is_refused(tmp_path, step, good):
    write(tmp_path / "in.jsonl", good)
    (tmp_path / "out.jsonl").mkdir()
    assert "out.jsonl: is a folder" in error_of(step(tmp_path, "--overwrite"))


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_an_output_whose_folder_cannot_be_made_is_refused(tmp_path, step, good):
    # Given a file where the output's folder should be
    write(tmp_path / "in.jsonl", good)
    write(tmp_path / "file", "precious")
    flag = "--rollout_file_path" if step is evaluate else "--output_file"
    error = error_of(step(tmp_path, flag, "file/out.jsonl"))  # the last of repeated flags counts
    assert "file" in error
    assert (tmp_path / "file").read_text(encoding="utf-8") == "precious\n"


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_strict_stops_at_the_first_bad_line_and_writes_nothing(tmp_path, step, good):
    # Blank lines are no bad lines
    write(tmp_path / "in.jsonl", "", '{"session_id": 1}', good)
    error = error_of(step(tmp_path, "--strict"))
    assert error.startswith("in.jsonl:2: ")
    assert "Field required" in error
    assert not (tmp_path / "out.jsonl").exists()
    assert not [name for name in names_in(tmp_path) if name.endswith(".partial")]


@pytest.mark.parametrize(("step", "good"), MODEL_FREE)
def test_a_run_that_stops_keeps_the_output_it_was_to_overwrite(tmp_path, step, good):
    write(tmp_path / "in.jsonl", good, "no JSON")
    write(tmp_path / "out.jsonl", "precious")
    assert error_of(step(tmp_path, "--strict", "--overwrite")).startswith("in.jsonl:2: not JSON")
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "precious\n"
    assert not [name for name in names_in(tmp_path) if name.endswith(".partial")]


@pytest.mark.parametrize(("step", "good"), MODEL_FREE)
def test_an_input_without_one_usable_line_is_refused_and_nothing_is_written(tmp_path, step, good):
    write(tmp_path / "in.jsonl", "no JSON", "{}")
    result = step(tmp_path)
    assert result.returncode == 2, result.stdout
    *skipped, error = result.stderr.splitlines()
    assert [line.partition(": ")[0] for line in skipped] == ["in.jsonl:1", "in.jsonl:2"]
    assert error.startswith("error: --input_file in.jsonl: ")
    assert not (tmp_path / "out.jsonl").exists()
    assert not [name for name in names_in(tmp_path) if name.endswith(".partial")]


def test_samples_with_nothing_to_reward_make_no_dataset(tmp_path):
    write(tmp_path / "in.jsonl", {**SAMPLE, "info_set": []}, {**SAMPLE, "cid": "35310_2", "info_set": None})
    assert "no sample is left" in error_of(build(tmp_path))
    assert names_in(tmp_path) == ["in.jsonl"]


def test_an_existing_evaluation_is_noticed_before_the_policy_is_asked(tmp_path):
    # Rollouts of a large model take hours; what is known beforehand is said beforehand.
    write(tmp_path / "in.jsonl", TASK)
    write(tmp_path / "eval.jsonl", "precious")
    error = error_of(evaluate(tmp_path))
    assert "--eval_file_path eval.jsonl: exists" in error
    assert "--overwrite" in error
    assert names_in(tmp_path) == ["eval.jsonl", "in.jsonl"]


@pytest.mark.parametrize("part", ["eval", "grader"])
def test_a_model_path_that_leads_nowhere_is_named_before_anything_is_asked(tmp_path, part):
    write(tmp_path / "in.jsonl", TASK)
    (tmp_path / "empty").mkdir()
    error = error_of(evaluate(tmp_path, f"--{part}_engine", "transformers", f"--{part}_model_path", "empty"))
    assert error.startswith(f"--{part}_model_path empty: holds no model. Looked for: ")
    assert names_in(tmp_path) == ["empty", "in.jsonl"]


@pytest.mark.parametrize(
    ("engine", "path", "place"),
    [("transformers", "tinker://a/sampler_weights/b", "on a Tinker service"), ("tinker", "adapter", "on this machine")],
)
def test_an_engine_that_cannot_have_the_weights_is_told_so(tmp_path, engine, path, place):
    write(tmp_path / "in.jsonl", TASK)
    (tmp_path / "adapter").mkdir()
    write(tmp_path / "adapter" / "adapter_config.json", {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "a/b"})
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    error = error_of(evaluate(tmp_path, "--eval_engine", engine, "--eval_model_path", path))
    assert error == f"--eval_model_path {path}: its weights are {place}, the {engine} engine cannot use them"


def test_an_unfinished_run_is_neither_continued_nor_dropped_by_accident(tmp_path):
    write(tmp_path / "in.jsonl", SESSION)
    result = {"index": 0, "failed": 0, "record": {}}
    write(tmp_path / "out.jsonl.journal", {"fingerprint": {"engine": "offline:another"}}, result)
    before = (tmp_path / "out.jsonl.journal").read_bytes()
    error = error_of(extract(tmp_path))
    assert "--resume" in error and "--overwrite" in error
    assert "engine was offline:another, is now offline:extract_answer" in error_of(extract(tmp_path, "--resume"))
    assert (tmp_path / "out.jsonl.journal").read_bytes() == before
    assert extract(tmp_path, "--overwrite").returncode == 0
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_journal_without_any_result_stands_in_nobodys_way(tmp_path):
    write(tmp_path / "in.jsonl", SESSION)
    write(tmp_path / "out.jsonl.journal", {"fingerprint": {"engine": "offline:another"}})
    assert extract(tmp_path).returncode == 0
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    write(tmp_path / "in.jsonl", SESSION)
    write(tmp_path / "out.jsonl", "precious")
    result = extract(tmp_path, "--resume")
    assert (result.returncode, result.stderr) == (0, "")
    assert "already complete" in result.stdout
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "precious\n"


@pytest.mark.parametrize("script", [EXTRACT, BUILD, EVALUATE], ids=lambda script: script.stem)
def test_a_missing_flag_is_named(tmp_path, script):
    result = run(tmp_path, script)
    assert result.returncode == 2
    assert "the following arguments are required: --" in result.stderr
    assert "Traceback" not in result.stderr
