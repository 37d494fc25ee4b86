"""What a training run takes: counted, priced, kept in a ledger, and stopped at its budget."""

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict

import pytest
import torch
from fault_server import FaultServer
from medical import grade_answer
from training_run import GRADER_KEY, ROOT
from trinity.common.experience import EID, Experience

from tuner.learn_to_ask.engines.retrying import Usage
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.training.estimate import Estimate, beside_forecast
from tuner.learn_to_ask.training.failed_rollouts import LeaveOutFailedRollouts
from tuner.learn_to_ask.training.grader import ask_grader
from tuner.learn_to_ask.training.money import (
    Money,
    Spent,
    Tokens,
    TrainingPrices,
    could_exceed,
    money_of,
    note_step,
    read_spent,
)
from tuner.learn_to_ask.training.settings import TrainingSettings
from tuner.learn_to_ask.training.spending import budget_reached
from tuner.learn_to_ask.training.token_counts import CountTokens

PRICES = TrainingPrices(prefill=1.0, cached_prefill=0.2, sample=3.0, train=2.0, grader_prefill=10.0, grader_sample=20.0)


def rollout(task, prompt, response, **metrics):
    return Experience(
        eid=EID(batch=1, task=task, run=0, step=0),
        tokens=torch.zeros(prompt + response),
        prompt_length=prompt,
        logprobs=torch.zeros(response),
        reward=1.0,
        metrics=metrics,
    )


def counted(rollouts, *, size, passes=2, reference=True):
    async def process():
        exps, _ = await LeaveOutFailedRollouts(size).process(rollouts)
        return (await CountTokens(passes, reference).process(exps))[1]

    return Tokens.of_metrics({f"experience_pipeline/{name}": value for name, value in asyncio.run(process()).items()})


def test_a_step_is_counted_by_what_each_token_was_for():
    # Given a group of three that shares a prompt of 10, and one rollout alone; the grader was asked about two
    rollouts = [
        rollout("a", 10, 4, grader_prompt_tokens=100.0, grader_answer_tokens=20.0),
        rollout("a", 10, 5, grader_prompt_tokens=101.0, grader_answer_tokens=30.0),
        rollout("a", 10, 6),
        rollout(2, 7, 1),  # Trinity's own tasks have numbers
    ]

    assert counted(rollouts, size=4) == Tokens(
        prompt=37,
        repeated_prompt=20,
        response=16,
        reference=53,
        training=106,
        grader_prompt=201,
        grader_answer=50,
    )
    assert counted(rollouts, size=4, passes=1, reference=False).training == 53


def test_a_rollout_that_was_made_up_costs_only_its_update():
    # The second of two is missing: a copy of the first takes its place.
    found = counted([rollout("a", 10, 4, grader_prompt_tokens=100.0, grader_answer_tokens=20.0)], size=2)

    assert (found.prompt, found.response, found.grader_prompt) == (10, 4, 100)
    assert (found.training, found.reference) == (2 * 28, 28)


def test_every_kind_of_token_has_its_price():
    tokens = Tokens(
        prompt=50, repeated_prompt=40, response=7, reference=57, training=114, grader_prompt=9, grader_answer=2
    )

    usd = tokens.usd(PRICES)
    assert usd["sampling"] == pytest.approx((50 * 1 + 7 * 3) / 1e6)
    assert usd["training"] == pytest.approx((114 * 2 + 57 * 1) / 1e6)
    assert usd["grading"] == pytest.approx((9 * 10 + 2 * 20) / 1e6)
    # of the 50, 40 from the cache at a fifth
    assert tokens.usd(PRICES, cached=True)["sampling"] == pytest.approx((10 * 1 + 40 * 0.2 + 7 * 3) / 1e6)


def test_the_ledger_adds_up_over_the_parts_of_a_run_and_a_line_cut_off_by_a_crash_does_not_count(tmp_path):
    assert read_spent(tmp_path) == Spent()
    note_step(tmp_path, 1, Tokens(prompt=5, response=2), 0.25)
    note_step(tmp_path, 2, Tokens(prompt=6, response=3), 0.5)
    note_step(tmp_path, 2, Tokens(prompt=6, response=3), 0.5)  # again, after a kill
    with (tmp_path / "spent.jsonl").open("a") as file:
        file.write('{"step": 3, "us')

    assert read_spent(tmp_path) == Spent(3, Tokens(prompt=17, response=8), 1.25)


@pytest.mark.parametrize(
    ("max_usd", "steps", "exceeds"),
    # 2 USD were spent in 4 steps: 0.5 each
    [(None, 99, False), (2.6, 1, False), (2.6, 2, True), (3.0, 2, False), (2.0, 1, True), (1.0, 1, True)],
)
def test_a_step_is_begun_while_it_and_what_is_under_way_fit_by_the_average(max_usd, steps, exceeds):
    assert could_exceed(Money(max_usd=max_usd), Spent(4, Tokens(), 2.0), steps=steps) == exceeds


def test_before_the_first_step_the_estimate_says_what_one_costs(tmp_path):
    assert could_exceed(Money(max_usd=1.0, usd_a_step=0.6), Spent(), steps=2)
    assert not could_exceed(Money(max_usd=1.0, usd_a_step=0.6), Spent(), steps=1)
    assert budget_reached(Money(max_usd=0.5, usd_a_step=0.6), tmp_path) == (
        "--max_usd 0.5: a step takes about 0.6000 by the estimate; raise it"
    )


def given(**flags):
    return {f"price_{name}": value for name, value in asdict(PRICES).items() if name != "source"} | flags


def test_a_budget_names_the_prices_that_it_lacks(monkeypatch):
    monkeypatch.delenv("TINKER_BASE_URL", raising=False)
    on_tinker = TrainingSettings(model_path="org/policy", auxiliary_model_path="org/grader")
    with pytest.raises(UserError, match="--price_prefill, --price_sample, --price_train, --price_grader_prefill"):
        money_of(on_tinker, {"max_usd": 1.0}, tinker=True, base_url=None)
    elsewhere = TrainingSettings(grader="openai", grader_base_url="http://h/v1", grader_model="m")
    with pytest.raises(UserError, match="lack prices; pass --price_grader_sample, USD"):
        money_of(elsewhere, {"max_usd": 1.0, "price_grader_prefill": 1.0}, tinker=False, base_url=None)
    with pytest.raises(UserError, match="--max_usd: nothing in this run has a price; leave it out"):
        money_of(TrainingSettings(), {"max_usd": 1.0}, tinker=False, base_url=None)
    with pytest.raises(UserError, match="--max_usd 0: a number above 0 is needed"):
        money_of(on_tinker, given(max_usd=0.0), tinker=True, base_url=None)
    assert money_of(on_tinker, given(max_usd=1.0), tinker=True, base_url=None) == Money(prices=PRICES, max_usd=1.0)


def test_prices_are_those_of_the_table_and_flags_override_them(monkeypatch):
    monkeypatch.delenv("TINKER_BASE_URL", raising=False)
    settings = TrainingSettings(model_path="Qwen/Qwen3-8B", auxiliary_model_path="Qwen/Qwen3.6-35B-A3B")

    found = money_of(settings, {"price_train": 9.0, "max_usd": 5.0}, tinker=True, base_url=None)

    prices = found.prices
    assert (prices.prefill, prices.cached_prefill, prices.sample, prices.train) == (0.195, 0.039, 0.60, 9.0)
    assert (prices.grader_prefill, prices.grader_sample) == (0.54, 1.335)
    assert "read 2026-10-07" in prices.source
    assert money_of(settings, {}, tinker=True, base_url="http://own").prices == TrainingPrices()


def test_what_a_run_took_stands_beside_what_the_estimate_said_for_as_many_steps():
    forecast = Estimate(
        tasks=10,
        steps=4,
        epochs=1.0,
        sequences=40,
        graded=0,
        prompt_tokens=4_000_000,
        response_tokens=0,
        grading_prompt_tokens=0,
        grading_answer_tokens=0,
        sequence_tokens=4_000_000,
        training_passes=0,
        prices=PRICES,
    )

    text = beside_forecast(Spent(2, Tokens(prompt=1_500_000), 1.5), PRICES, forecast)

    lines = {line[:32].strip(): line[32:].split() for line in text.splitlines()}
    assert lines["prompt tokens"] == ["1,500,000", "2,000,000"]
    assert lines["USD, no prompt cached"] == ["1.5000", "2.0000"]


@pytest.mark.parametrize("reports", [True, False])
def test_all_tries_of_a_grader_count_and_are_estimated_where_it_does_not_tell(reports):
    # Given a grader that says something unreadable first; a word is a token for it
    replies = ["hm", "<think>x</think><format_score>1.0</format_score><content_score>0.5</content_score>"]
    usage = Usage()
    with FaultServer(answer=lambda _: replies[min(server.received - 1, 1)]) as server:
        if not reports:
            complete = server._completion
            server._completion = lambda call: json.dumps(json.loads(complete(call)) | {"usage": None}).encode()
        settings = TrainingSettings(grader="openai", grader_base_url=server.base_url, grader_model="m")
        messages = [{"role": "user", "content": "nine words are in this prompt for the grader"}]
        asyncio.run(ask_grader(messages, {}, settings.grader_settings(), None, usage))

    if reports:
        assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (18, 1 + 1, 0)
    else:
        size = len(messages[0]["content"])
        assert (usage.prompt_tokens, usage.estimated) == (2 * round(size / 3), 2)
        assert usage.completion_tokens == sum(round(len(reply) / 3) for reply in replies)


@pytest.fixture
def ray_folder():
    """A folder of this run's own for Ray, whose sockets want short paths: no other cluster of this machine is found."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_training_stops_at_its_budget_and_goes_on_with_a_larger_one(service, recipe, ray_folder, tmp_path):
    # Given three steps, and a price for every token: the local service has none
    prices = [f"--price_{name}=1" for name in ("prefill", "sample", "train", "grader_prefill", "grader_sample")]
    own = {"TRINITY_CHECKPOINT_ROOT_DIR": str(tmp_path), "GRADER_KEY": GRADER_KEY, "RAY_TMPDIR": ray_folder}
    own |= {"LEARN2ASK_ROLLOUT_SECONDS": "300", "LEARN2ASK_RUNNERS": "1"}
    job = tmp_path / "Learn2Ask" / "quickstart"

    def train(*flags):
        with FaultServer(answer=grade_answer) as grader:
            command = [*recipe, f"--grader_base_url={grader.base_url}", *prices, "--total_steps=3", *flags]
            return subprocess.run(
                command, cwd=ROOT, env={**service, **own}, capture_output=True, text=True, timeout=1800, check=False
            )

    # When it has less than one step needs, nothing starts
    refused = train("--max_usd=0.000001")
    assert refused.returncode == 2, refused.stdout[-3000:] + refused.stderr[-3000:]
    assert "a step takes about" in refused.stderr
    assert not (job / "spent.jsonl").exists()

    # When it has enough for one by the estimate, which is more than it takes, one or two are trained on
    step = float(re.findall(r"a step takes about ([0-9.]+)", refused.stderr)[0])
    stopped = train(f"--max_usd={1.2 * step}")
    output = stopped.stdout + stopped.stderr
    assert stopped.returncode == 1, output[-5000:]
    first = read_spent(job)
    assert 0 < first.usd <= 1.2 * step
    assert first.steps in (1, 2)
    assert (job / "latest_checkpointed_iteration.txt").read_text() == str(first.steps)
    assert f"training stopped early; --max_usd {1.2 * step:g}:" in output
    assert re.search(rf"spent +{first.usd:.4f} USD in {first.steps} steps", output)
    assert re.search(rf"prompt tokens +{first.tokens.prompt:,} +[0-9,]+", output)
    for metric in ("money/sampling_usd", "money/training_usd", "money/grading_usd", "money/total_usd"):
        assert metric in output

    # When it gets more, it goes on from there to its end, and every step is counted once
    finished = train(f"--max_usd={20 * step}")
    assert finished.returncode == 0, finished.stdout[-5000:] + finished.stderr[-3000:]
    assert f"going on from the checkpoint of step {first.steps} of 3" in finished.stdout
    entries = [json.loads(line) for line in (job / "spent.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    tokens = read_spent(job).tokens
    assert min(asdict(tokens).values()) > 0
    assert tokens.training == 2 * tokens.reference == 2 * (tokens.prompt + tokens.response)
    assert tokens.repeated_prompt == tokens.prompt * 3 // 4
