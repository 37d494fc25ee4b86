"""The estimate of tokens and money, with a tokenizer that takes a word for a token."""

import json

import pytest

from tuner.learn_to_ask.engines.chat import ChatEncoder
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.prompt import reward_prompt_med, rollout_prompt_med
from tuner.learn_to_ask.training.estimate import Estimate, TrainingPrices, calibration, estimate, print_estimate
from tuner.learn_to_ask.training.settings import TrainingSettings

SYSTEM = len(rollout_prompt_med.split())
GRADING = len(reward_prompt_med.split()) - 1  # without the placeholder of the reference


class WordTokenizer:
    """A word is a token; the chat template adds none."""

    all_special_tokens = ()

    def get_added_vocab(self):
        return {}

    def apply_chat_template(self, messages, **_):
        return " ".join(message["content"] for message in messages)

    def __call__(self, text, **_):
        return {"input_ids": text.split()}


def task(cid, decision, words, info=""):
    return {
        "cid": cid,
        "session_id": "1",
        "messages": [{"role": "user", "content": "w " * words}],
        "decision_truth": decision,
        "info_truth": info,
    }


@pytest.fixture
def tasks_file(tmp_path):
    file = tmp_path / "train.jsonl"
    tasks = [task("1_0", "continue", 10, "symptom: cough"), task("1_2", "stop", 30)]
    file.write_text("".join(json.dumps(each) + "\n" for each in tasks))
    return file


def settings(**changes):
    return TrainingSettings(**{"batch_size": 2, "group_size": 5, "total_epochs": 4, **changes})


def found(**changes):
    numbers = {
        "tasks": 10,
        "steps": 4,
        "epochs": 4.0,
        "sequences": 1000,
        "graded": 500,
        "prompt_tokens": 50_000_000,
        "response_tokens": 6_000_000,
        "grading_prompt_tokens": 0,
        "grading_answer_tokens": 0,
        "sequence_tokens": 56_000_000,
        "training_passes": 2,
    }
    return Estimate(**{**numbers, **changes})


def test_every_rollout_of_every_epoch_is_counted(tasks_file):
    result = estimate(settings(), tasks_file, ChatEncoder(WordTokenizer(), "m"), response_tokens=7, grade_tokens=11)

    assert (result.tasks, result.steps, result.sequences) == (2, 4, 40)
    # 2 tasks, each rolled out 4 x 5 times
    assert result.prompt_tokens == 20 * (SYSTEM + 10) + 20 * (SYSTEM + 30)
    assert result.response_tokens == 40 * 7
    # only the continue task: its dialogue with `patient:` before and `doctor:` after it, the reference, the response
    assert result.graded == 20
    assert result.grading_prompt_tokens == 20 * (GRADING + 2 + 10 + 2 + 7)
    assert result.grading_answer_tokens == 20 * 11
    assert result.sequence_tokens == result.prompt_tokens + result.response_tokens
    assert result.training_tokens == 2 * result.sequence_tokens


def test_steps_override_epochs(tasks_file):
    result = estimate(settings(total_steps=3), tasks_file, ChatEncoder(WordTokenizer(), "m"))

    assert (result.steps, result.epochs, result.sequences) == (3, 3.0, 30)
    assert result.prompt_tokens == 15 * (2 * SYSTEM + 40)


def test_the_rest_that_fills_no_batch_costs_nothing(tasks_file):
    result = estimate(settings(batch_size=3, total_epochs=4), tasks_file, ChatEncoder(WordTokenizer(), "m"))

    assert (result.steps, result.sequences) == (2, 30)


def test_the_offline_grader_takes_no_tokens(tasks_file):
    result = estimate(settings(grader="offline"), tasks_file, ChatEncoder(WordTokenizer(), "m"))

    assert (result.graded, result.grading_tokens) == (0, 0)


def test_tasks_that_fill_no_batch_are_an_error(tasks_file):
    with pytest.raises(UserError, match="2 tasks do not fill one batch of 64"):
        estimate(settings(batch_size=64), tasks_file, ChatEncoder(WordTokenizer(), "m"))


def test_each_kind_of_token_has_its_price():
    prices = TrainingPrices(prefill=0.1, sample=1.0, train=0.5, grader_prefill=2.0, grader_sample=3.0)

    result = found(prices=prices, grading_prompt_tokens=1_000_000, grading_answer_tokens=2_000_000)

    # 50 x 0.1 + 6 x 1.0 + 2 x 56 x 0.5 + 1 x 2.0 + 2 x 3.0
    assert result.usd == pytest.approx(5 + 6 + 56 + 2 + 6)


def test_without_prices_there_is_no_bill():
    assert found().usd is None
    assert "USD for 4 epochs by the prices" not in calibration(found())


def test_the_calibration_names_every_share_and_the_nearest():
    text = calibration(found(grading_prompt_tokens=28_000_000))

    assert "50.0%  56.00 M  rollouts alone" in text
    assert "75.0%  84.00 M  rollouts and grading" in text
    assert "150.0%  168.00 M  rollouts and training in 2 passes" in text
    assert "175.0%  196.00 M  all of it" in text
    assert "nearest: rollouts and grading, 75.0%" in text
    assert "these 10 tasks" in text


def test_the_calibration_scales_to_the_published_epochs():
    text = calibration(found(epochs=2.0, prices=TrainingPrices(prefill=0.09)))

    assert "100.0%  112.00 M  rollouts alone" in text
    # 50 M x 0.09 USD, twice
    assert "9.00 USD for 4 epochs by the prices given: 50.0% of the published bill" in text


def test_it_all_fits_on_one_screen(capsys):
    print_estimate(found(prices=TrainingPrices(train=1.0)))

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 120
    assert any("112.00 USD" in line for line in lines)


def test_a_price_that_is_missing_is_named_beside_the_bill(capsys):
    print_estimate(found(prices=TrainingPrices(train=1.0, prefill=0.0), grading_prompt_tokens=5))

    assert "112.00 USD, without what --price_sample, --price_grader_prefill would add" in capsys.readouterr().out


def test_the_calibration_says_what_lengths_it_assumes():
    text = calibration(found(grading_answer_tokens=60_000))

    assert "6000 tokens a response" in text  # 6 million in 1000 rollouts
    assert "a grade of 120 tokens" in text  # 60,000 in 500 grades


@pytest.fixture
def command(tasks_file, monkeypatch):
    """Runs main.py with flags, on a policy whose tokenizer takes a word for a token."""
    import transformers

    from tuner.learn_to_ask import main
    from tuner.learn_to_ask.engines import transformers as engine

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda _: WordTokenizer())
    monkeypatch.setattr(engine, "require_model", lambda _: None)

    def start(*flags):
        given = ["--data", str(tasks_file), "--batch_size", "2", "--group_size", "5", *flags]
        monkeypatch.setattr("sys.argv", ["main.py", *given])
        return main.main()

    return start


def test_the_flags_of_main_reach_the_estimate(command, capsys):
    flags = ["--price_prefill", "1000", "--price_sample", "1e6", "--price_train", "0"]
    grader = ["--price_grader_prefill", "0", "--price_grader_sample", "1e6"]

    code = command("--estimate", *flags, *grader, "--estimate_response_tokens", "7", "--estimate_grade_tokens", "11")

    # 40 rollouts of 7 tokens and 20 grades of 11 at 1 USD a token, and the prompts of 20 times both tasks.
    prompts = 20 * (SYSTEM + 10) + 20 * (SYSTEM + 30)
    assert code == 0
    assert f"{40 * 7 + 20 * 11 + prompts / 1000:.2f} USD\n" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--estimate_response_tokens", "--estimate_grade_tokens"])
def test_what_only_the_estimate_reads_is_refused_without_it(flag, command):
    with pytest.raises(UserError, match=f"{flag}: only --estimate reads it"):
        command(flag, "1")


@pytest.mark.parametrize(
    "flag",
    [
        "--price_prefill",
        "--price_cached_prefill",
        "--price_sample",
        "--price_train",
        "--price_grader_prefill",
        "--price_grader_sample",
        "--estimate_response_tokens",
        "--estimate_grade_tokens",
        "--max_usd",
    ],
)
def test_a_price_or_length_below_zero_is_refused(flag, command):
    for wrong in ("-1", "nan", "inf"):
        with pytest.raises(UserError, match=f"{flag} {wrong}: a number of at least 0 is needed"):
            command("--estimate", f"{flag}={wrong}")


def test_the_prompt_of_a_group_is_read_once_and_four_times_from_the_cache(tasks_file):
    prices = TrainingPrices(prefill=1.0, cached_prefill=0.2)

    result = estimate(settings(), tasks_file, ChatEncoder(WordTokenizer(), "m"), prices=prices)

    # 4 epochs of both prompts: 1 full and 4 cached of each group of 5
    once = 4 * (2 * SYSTEM + 40)
    assert result.repeated_prompt_tokens == 4 * once
    assert result.usd == pytest.approx((once + 4 * once * 0.2) / 1e6)
    assert result.most_usd == pytest.approx(5 * once / 1e6)


def test_on_tinker_the_reference_model_reads_every_rollout_once_more(tasks_file):
    encoder, prices = ChatEncoder(WordTokenizer(), "m"), TrainingPrices(prefill=1.0)

    with_reference = estimate(settings(), tasks_file, encoder, prices=prices, reference=True)
    without = estimate(settings(), tasks_file, encoder, prices=prices)

    assert with_reference.usd - without.usd == pytest.approx(with_reference.sequence_tokens / 1e6)


def test_models_of_the_table_have_its_prices_and_it_says_of_when_they_are(command, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TINKER_BASE_URL", raising=False)
    config = tmp_path / "config.yaml"
    config.write_text("project: p\nname: n\nmodel:\n  tinker:\n    enable: true\n")

    code = command(
        "--estimate", f"--config={config}", "--model_path=Qwen/Qwen3-8B", "--auxiliary_model_path=org/not-listed"
    )

    printed = capsys.readouterr().out
    assert code == 0
    assert "Qwen/Qwen3-8B: tinker_prices.yaml, read 2026-10-07" in printed
    assert "without what --price_grader_prefill, --price_grader_sample would add" in printed


def test_a_server_of_ones_own_does_not_charge_what_the_hosted_one_does(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:9")
    config = tmp_path / "config.yaml"
    config.write_text("project: p\nname: n\nmodel:\n  tinker:\n    enable: true\n")

    command("--estimate", f"--config={config}", "--model_path=Qwen/Qwen3-8B", "--grader=offline")

    assert "unknown: no prices given, and the tables lack these models" in capsys.readouterr().out
