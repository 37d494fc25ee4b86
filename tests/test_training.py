"""The real thing, small: tune() trains a policy on the real engine, scripts evaluate what it trained."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.prompt import rollout_messages
from tuner.learn_to_ask.quickstart.base_policy import BasePolicyConfig, build_base_policy
from tuner.learn_to_ask.quickstart.processes import child_process, free_port, wait_for_server
from tuner.learn_to_ask.records import Task
from tuner.learn_to_ask.segmentation import segment

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "tuner" / "learn_to_ask"
ENGINE_PYTHON = ROOT / ".venv-engine" / "bin" / "python"

pytestmark = pytest.mark.slow


def run(command, *, env, timeout=600):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env=env,
        cwd=ROOT,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Both splits of the sample logs as tasks, made by the real scripts."""
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        raw = folder / f"{split}_processed"
        scripts = RECIPE / "data_prepare"
        flags = ["--engine", "offline", "--input_file", RECIPE / "sample_data" / f"{split}_origin.jsonl"]
        run([scripts / "1_info_extract_pipeline.py", *flags, "--output_file", raw], env=os.environ)
        out = folder / f"{split}.jsonl"
        run([scripts / "2_build_dataset.py", "--input_file", raw, "--output_file", out], env=os.environ)
    return folder


@pytest.fixture(scope="module")
def base_policy(tasks, tmp_path_factory):
    """A base policy that has hardly been taught anything."""
    folder = tmp_path_factory.mktemp("policy")
    train = list(read_jsonl(tasks / "train.jsonl", Task, unique_key="cid", report=ReadReport()))
    build_base_policy(folder, train, BasePolicyConfig(steps=60), seed=0)
    return folder


@pytest.fixture(scope="module")
def service(base_policy, tmp_path_factory):
    """The environment of a client of the real engine."""
    folder = tmp_path_factory.mktemp("engine")
    port = free_port()
    command = [
        str(ENGINE_PYTHON),
        str(RECIPE / "quickstart" / "engine_server.py"),
        f"--base-model={base_policy}",
        f"--port={port}",
        f"--database-url=sqlite:///{folder / 'engine.db'}",
        f"--checkpoints-base={folder / 'checkpoints'}",
        "--session-cleanup-interval-sec=-1",
        '--backend-config={"max_lora_adapters": 4, "max_lora_rank": 16, "sample_max_num_sequences": 16}',
    ]
    with child_process(command, log=folder / "log", env=dict(os.environ)) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for_server(process, f"{url}/api/v1/get_server_capabilities", log=folder / "log", timeout=180)
        yield {
            **os.environ,
            "TINKER_API_KEY": "tml-secret-of-this-test",
            "TINKER_BASE_URL": url,
            "HF_HUB_OFFLINE": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }


@pytest.fixture
def in_service(service, monkeypatch):
    """Makes this process a client of the engine."""
    for key in ("TINKER_API_KEY", "TINKER_BASE_URL"):
        monkeypatch.setenv(key, service[key])


def test_responses_end_at_the_end_token_though_no_request_names_a_stop(in_service, base_policy):
    import tinker

    client = tinker.ServiceClient().create_sampling_client(base_model=str(base_policy))
    tokenizer = client.get_tokenizer()
    prompt = tokenizer("<|im_start|>user\nmy head hurts<|im_end|>\n<|im_start|>assistant\n")["input_ids"]

    sequences = [
        client.sample(
            tinker.types.ModelInput.from_ints(prompt), 1, tinker.types.SamplingParams(max_tokens=64, seed=seed)
        )
        .result()
        .sequences[0]
        for seed in range(4)
    ]

    stopped = [sequence.tokens for sequence in sequences if sequence.stop_reason == "stop"]
    assert stopped
    assert all(tokens.index(tokenizer.eos_token_id) == len(tokens) - 1 for tokens in stopped)


def test_the_loss_of_a_sequence_is_the_sum_over_its_weights_as_tinker_documents(in_service, base_policy):
    # Given: the same sequence with weights w, 3w and -w. When the loss is the plain sum of weighted
    # log-probabilities, the gradients are g, 3g and -g. Divided by the sum of the weights they would be g, g
    # and, that sum being negative, a billion times g.
    import tinker

    client = tinker.ServiceClient().create_lora_training_client(
        base_model=str(base_policy), rank=4, train_unembed=False, seed=0
    )
    tokens = list(range(10, 30))

    def gradient_norm(weight):
        datum = tinker.types.Datum(
            model_input=tinker.types.ModelInput.from_ints(tokens[:-1]),
            loss_fn_inputs={"target_tokens": tokens[1:], "weights": [weight] * (len(tokens) - 1)},
        )
        client.forward_backward([datum], "cross_entropy").result()
        step = client.optim_step(tinker.types.AdamParams(learning_rate=0.0)).result()
        return step.metrics["skyrl.ai/grad_norm"]

    once = gradient_norm(0.1)

    assert once > 0
    assert gradient_norm(0.3) == pytest.approx(3 * once, rel=1e-3)
    assert gradient_norm(-0.1) == pytest.approx(once, rel=1e-3)


def test_the_tinker_engine_gives_n_different_answers_without_special_tokens(in_service, base_policy, tasks):
    from tuner.learn_to_ask.engines.tinker import TinkerEngine

    engine = TinkerEngine(str(base_policy), seed=0)
    test = list(read_jsonl(tasks / "test.jsonl", Task, unique_key="cid", report=ReadReport()))[:6]
    requests = [Request(index, rollout_messages(task.messages, "Ra+Rs")) for index, task in enumerate(test)]

    replies = list(engine.generate(requests, Sampling(temperature=1.0, top_p=0.95, max_tokens=48, n=3)))

    assert sorted(reply.key for reply in replies) == list(range(6))
    assert all(len(reply.texts) == 3 and not reply.error for reply in replies)
    assert all("<|" not in text for reply in replies for text in reply.texts)
    assert any(len(set(reply.texts)) > 1 for reply in replies)
    assert all(reply.prompt_tokens > 0 and reply.completion_tokens > 0 for reply in replies)


def test_the_folder_of_a_run_on_tinker_is_enough_to_evaluate_its_newest_weights(
    in_service, base_policy, tasks, tmp_path
):
    # Given sampler weights on the service and the note of them that Trinity leaves in a run's folder
    import tinker

    client = tinker.ServiceClient().create_lora_training_client(
        base_model=str(base_policy), rank=4, train_unembed=False, seed=0
    )
    path = client.save_weights_for_sampler("step-2").result().path
    (tmp_path / "run" / "global_step_2").mkdir(parents=True)
    (tmp_path / "run" / "global_step_2" / "remote_sampler_path.txt").write_text(path)
    (tmp_path / "run" / "latest_state_dict_iteration.txt").write_text("2")
    lines = (tasks / "test.jsonl").read_text().splitlines(keepends=True)[:4]
    (tmp_path / "few.jsonl").write_text("".join(lines))
    # When script 3 gets that folder and nothing about Tinker, and rolls out with the agent
    output = run(
        [
            RECIPE / "data_prepare" / "3_rollout_then_evaluate.py",
            f"--eval_model_path={tmp_path / 'run'}",
            "--rollout_mode=react",
            "--grader_engine=offline",
            f"--test_file_path={tmp_path / 'few.jsonl'}",
            f"--rollout_file_path={tmp_path / 'rollouts.jsonl'}",
            f"--eval_file_path={tmp_path / 'eval.jsonl'}",
            "--max_tokens=32",
        ],
        env=os.environ,
    )
    # Then it finds the weights and the service that has them
    assert f"{tmp_path / 'run'}: step 2, {path}" in output
    records = [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text().splitlines()]
    assert {record["policy"] for record in records} == {f"tinker:{path} ({tmp_path / 'run'}, step 2) (ReAct agent)"}
    assert all(len(record["rollouts"]) == 3 for record in records)
    assert not any("<|" in rollout for record in records for rollout in record["rollouts"])


def test_the_transformers_engine_answers_the_same_conversations(base_policy, tasks):
    from tuner.learn_to_ask.engines.transformers import TransformersEngine

    test = list(read_jsonl(tasks / "test.jsonl", Task, unique_key="cid", report=ReadReport()))[:5]
    requests = [Request(index, rollout_messages(task.messages, "Ra+Rs")) for index, task in enumerate(test)]
    greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=16)

    one_batch = TransformersEngine(str(base_policy), batch_size=8, seed=0).generate(requests, greedy)
    one_by_one = TransformersEngine(str(base_policy), batch_size=1, seed=0).generate(requests, greedy)

    alone = {reply.key: reply.texts for reply in one_by_one}
    assert {reply.key: reply.texts for reply in one_batch} == alone
    assert sorted(alone) == list(range(5))


def test_main_trains_with_grpo_and_script_3_evaluates_the_trained_weights(service, base_policy, tasks, tmp_path):
    # When: two real GRPO steps of 4 tasks x 4 rollouts.
    env = {**service, "TRINITY_CHECKPOINT_ROOT_DIR": str(tmp_path), "LEARN2ASK_SEED": "0"}
    output = run(
        [
            RECIPE / "main.py",
            f"--config={RECIPE / 'quickstart' / 'config.yaml'}",
            f"--model_path={base_policy}",
            f"--data={tasks}",
            "--grader=offline",
            "--total_steps=2",
            "--batch_size=4",
            "--group_size=4",
            "--learning_rate=1e-3",
            "--max_model_len=512",
            "--max_tokens=48",
            "--inference_engine_num=1",
        ],
        env=env,
    )

    # Then: it reached its last step and says so.
    assert re.search(r"steps\s+2 of 2", output)
    job = tmp_path / "Learn2Ask" / "quickstart"
    assert (job / "latest_checkpointed_iteration.txt").read_text() == "2"
    # The parts of the reward are logged beside it, and the rollouts of a group differ.
    steps = re.findall(r"Explorer.*Step \d+: (\{.*\})", output)
    for name in ("reward", "action_score", "content_score", "format_score"):
        assert any(f"rollout/{name}/mean" in step for step in steps), name
    assert any(float(std) > 0 for std in re.findall(r"group_advantages/reward_std/mean': ([0-9.]+)", output))
    # The service's key is nowhere in what the run leaves behind.
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert left
    assert not [file for file in left if env["TINKER_API_KEY"].encode() in file.read_bytes()]
    assert env["TINKER_API_KEY"] not in output

    # And: the trained weights can be evaluated by script 3.
    sampler = (job / "global_step_2" / "remote_sampler_path.txt").read_text()
    lines = (tasks / "test.jsonl").read_text().splitlines(keepends=True)[:6]
    (tmp_path / "few.jsonl").write_text("".join(lines))
    run(
        [
            RECIPE / "data_prepare" / "3_rollout_then_evaluate.py",
            "--eval_engine=tinker",
            f"--eval_model_path={sampler}",
            "--grader_engine=offline",
            f"--test_file_path={tmp_path / 'few.jsonl'}",
            f"--rollout_file_path={tmp_path / 'rollouts.jsonl'}",
            f"--eval_file_path={tmp_path / 'eval.jsonl'}",
            "--max_tokens=48",
        ],
        env=service,
    )
    records = [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text().splitlines()]
    assert [record["cid"] for record in records] == [json.loads(line)["cid"] for line in lines]
    assert all(len(record["rollouts"]) == len(record["grades"]) == 3 for record in records)


def test_segmenting_is_what_training_saw(tasks):
    # The staged tasks are samples of the logs: every context is one that segmentation cuts.
    from tuner.learn_to_ask.records import Session

    sessions = read_jsonl(
        RECIPE / "sample_data" / "train_origin.jsonl", Session, unique_key="session_id", report=ReadReport()
    )
    contexts = {sample.cid: sample.messages for session in sessions for sample in segment(session)}

    trained_on = list(read_jsonl(tasks / "train.jsonl", Task, unique_key="cid", report=ReadReport()))

    assert trained_on
    assert all(contexts[task.cid] == task.messages for task in trained_on)
