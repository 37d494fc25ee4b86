"""The preflight of the training set: lines, decisions, steps, learning rate, prompt lengths."""

import json

import pytest
from preflight_inputs import CONTINUE, DOCTOR, PATIENT, STOP, judged, model_folder, settings

from tuner.learn_to_ask.training.preflight.data import check_learning_rate, check_prompt_lengths, prompt_length_finding
from tuner.learn_to_ask.training.preflight.findings import Finding


def test_a_good_dataset_is_told_in_numbers(tmp_path):
    found = judged(tmp_path, CONTINUE, STOP)

    assert {finding.level for finding in found.values()} == {"ok"}
    assert found["dataset"].verdict == "2 tasks: 1 continue, 1 stop"
    assert found["steps"].verdict == "2 tasks x 1 epochs / batches of 2 = 1 steps"


def test_bad_lines_are_fatal_and_the_first_are_named_with_line_and_reason(tmp_path, capsys):
    found = judged(tmp_path, CONTINUE, STOP, "{", CONTINUE, {**STOP, "cid": 7}, "[]")["dataset lines"]

    assert found.level == "fatal"
    assert found.verdict.startswith("4 cannot be used: line 3: not JSON")
    assert "line 4: duplicate cid '1_0'" in found.verdict
    assert "line 5: cid: " in found.verdict
    assert "line 6" not in found.verdict
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("empty", ["", "  "])
def test_continue_without_information_is_fatal(empty, tmp_path):
    bad = [{**CONTINUE, "cid": f"{number}_0", "info_truth": empty} for number in range(5)]

    found = judged(tmp_path, STOP, *bad)["info_truth"]

    assert found.level == "fatal"
    assert "5 tasks (0_0, 1_0, 2_0 and 2 more)" in found.verdict


def test_a_last_message_of_the_assistant_is_fatal(tmp_path):
    found = judged(tmp_path, CONTINUE, {**STOP, "messages": [PATIENT, DOCTOR]})["last message"]

    assert found.level == "fatal"
    assert "1_2" in found.verdict


def test_a_dialogue_that_holds_the_stop_token_is_fatal_in_the_domain_it_belongs_to(tmp_path):
    quoting = {**STOP, "messages": [{"role": "user", "content": "it said <ticket /> and nothing more"}]}
    assert "stop token" not in judged(tmp_path, CONTINUE, quoting)
    found = judged(tmp_path, CONTINUE, quoting, domain="it_support")["stop token"]
    assert found.level == "fatal"
    assert "'<ticket />', the stop token of domain it_support" in found.verdict


def test_a_missing_decision_is_a_warning_because_it_counts_as_continue(tmp_path):
    bare = {key: value for key, value in CONTINUE.items() if key != "decision_truth"}

    found = judged(tmp_path, bare, STOP)

    assert found["decision_truth"].level == "warning"
    assert found["dataset"].verdict == "2 tasks: 1 continue, 1 stop"


@pytest.mark.parametrize(("mode", "level"), [("Ra+Rs", "fatal"), ("Rs", "fatal"), ("Ra", "warning")])
def test_one_decision_alone_can_only_train_questions(mode, level, tmp_path):
    found = judged(tmp_path, CONTINUE, {**CONTINUE, "cid": "2_0"}, train_mode=mode)["decisions"]

    assert found.level == level
    assert "no task says stop" in found.verdict


def test_an_empty_split_is_fatal_and_nothing_else_is_said_of_it(tmp_path):
    found = judged(tmp_path, "")

    assert {check: finding.level for check, finding in found.items()} == {"dataset": "fatal"}


def test_a_dataset_that_fills_no_batch_is_fatal_unless_the_steps_are_given(tmp_path):
    assert judged(tmp_path, CONTINUE, STOP, batch_size=3)["steps"].level == "fatal"
    assert judged(tmp_path, CONTINUE, STOP, batch_size=3, total_epochs=2)["steps"].level == "ok"
    assert judged(tmp_path, CONTINUE, STOP, batch_size=3, total_steps=1)["steps"].level == "ok"


# --- prompt lengths


def test_prompts_that_leave_no_room_for_a_response_are_counted():
    found = prompt_length_finding([5, 20000, 7169, 7168], 7168)

    assert found.level == "warning"
    assert "2 would be truncated" in found.verdict
    assert "their rollouts fail" in found.verdict  # what becomes of them in training
    assert "longest of 4 has 20000 tokens, 7168 fit" in found.verdict


def test_prompts_that_fit_are_ok_and_none_that_fits_is_fatal():
    assert prompt_length_finding([5, 7], 7).level == "ok"
    assert prompt_length_finding([8, 9], 7).level == "fatal"


@pytest.fixture
def word_model(tmp_path):
    """A model folder whose tokenizer takes a word for a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    model_folder(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_the_policys_own_tokenizer_measures(word_model, tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({**CONTINUE, "messages": [{**PATIENT, "content": "w " * 500}]}))

    found = check_prompt_lengths(settings(model_path=word_model, data=tmp_path, max_model_len=600, max_tokens=100))

    assert found.level == "fatal"
    assert "500 fit" in found.verdict


def test_a_dialogue_of_20000_tokens_is_counted_as_truncated(word_model, tmp_path):
    turns = [{**(PATIENT, DOCTOR)[turn % 2], "content": "w " * 1000} for turn in range(19)]
    long = {**STOP, "messages": [*turns, {**PATIENT, "content": "w " * 1000}]}
    (tmp_path / "train.jsonl").write_text(f"{json.dumps(CONTINUE)}\n{json.dumps(long)}\n")

    found = check_prompt_lengths(settings(model_path=word_model, data=tmp_path))

    assert found.level == "warning"
    assert "1 would be truncated (the longest of 2 has 20" in found.verdict
    assert "7168 fit" in found.verdict  # 8192 - 1024


def test_without_the_tokenizer_the_lengths_are_not_measured_and_it_says_why(tmp_path):
    found = check_prompt_lengths(settings(model_path=str(tmp_path), data=tmp_path))

    assert found.level == "warning"
    assert str(tmp_path) in found.verdict


def test_a_response_as_long_as_the_context_is_fatal():
    assert check_prompt_lengths(settings(max_model_len=1024, max_tokens=1024)).level == "fatal"


@pytest.mark.parametrize(("tinker", "rate"), [(False, "5e-07"), (True, "5e-06")])
def test_the_learning_rate_that_was_not_given_is_told(tinker, rate):
    found = check_learning_rate(settings(), tinker=tinker)

    assert found.level == "ok"
    assert found.verdict.startswith(f"{rate}, the default")


def test_a_rate_for_full_fine_tuning_is_a_warning_where_lora_is_trained():
    found = check_learning_rate(settings(learning_rate=5e-7), tinker=True)

    assert found.level == "warning"
    assert "about ten times that: 5e-06" in found.verdict


@pytest.mark.parametrize(("given", "tinker"), [(5e-7, False), (1e-3, False), (5e-6, True), (1e-3, True)])
def test_a_fitting_rate_is_told_as_it_was_given(given, tinker):
    assert check_learning_rate(settings(learning_rate=given), tinker=tinker) == Finding(
        "ok", "learning rate", f"{given:g}, by --learning_rate"
    )


def test_without_any_decision_truth_both_the_cause_and_the_consequence_are_told(tmp_path):
    bare = {key: value for key, value in CONTINUE.items() if key != "decision_truth"}

    found = judged(tmp_path, bare, {**bare, "cid": "2_0"})

    assert "2 tasks have no decision_truth and count as continue" in found["decision_truth"].verdict
    assert found["decisions"].level == "fatal"
