"""The real thing, small: tune() trains a policy on the real engine, scripts evaluate what it trained."""

import json
import os
import re
import subprocess

import pytest
from training_run import GRADER_KEY, RECIPE, ROOT, run

from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.prompt import rollout_messages

pytestmark = pytest.mark.slow


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


def test_a_killed_run_goes_on_from_its_last_checkpoint_though_the_explorer_was_ahead(training):
    # Given: killed after the update of step 3, with a checkpoint of step 2.
    assert training.place["latest_iteration"] > 2 or training.place["taskset_states"][0]["current_index"] > 2 * 4

    # Then: steps 3 and 4 are rolled out and trained on, with the weights of step 2 to begin with.
    resumed = training.outputs[1]
    assert "going on from the checkpoint of step 2 of 4" in resumed
    assert re.findall(r"Explore step (\d+) started", resumed)[:2] == ["3", "4"]
    assert re.findall(r"Training at step (\d+) finished", resumed) == ["3", "4"]
    assert re.search(r"Explorer sync_weights at step 2 finished, model version = 2", resumed)
    assert re.search(r"steps\s+4 of 4", resumed)
    # Four steps of four tasks, each task once.
    state = json.loads((training.job / "explorer_meta.json").read_text())
    assert (state["latest_iteration"], state["taskset_states"][0]["current_index"]) == (4, 16)


def test_checkpoints_come_when_they_were_asked_for(training):
    whole = sorted(flag.parent.name for flag in training.job.glob("global_step_*/.full_checkpoint"))

    assert whole == ["global_step_2", "global_step_4"]
    assert (training.job / "latest_checkpointed_iteration.txt").read_text() == "4"


def test_a_service_that_goes_away_for_a_minute_only_costs_time(training):
    assert training.refused > 0
    assert re.findall(r"Training at step (\d+) finished", training.outputs[1]) == ["3", "4"]


def test_the_parts_of_the_reward_are_logged_and_the_rollouts_of_a_group_differ(training):
    output = "".join(training.outputs)

    steps = re.findall(r"Explorer.*Step \d+: (\{.*\})", output)
    for name in ("reward", "action_score", "content_score", "format_score", "grader_failures"):
        assert any(f"rollout/{name}/mean" in step for step in steps), name
    assert any(float(std) > 0 for std in re.findall(r"group_advantages/reward_std/mean': ([0-9.]+)", output))


def test_rollouts_that_could_not_be_graded_are_counted_and_left_out_and_the_run_goes_on(training):
    output = "".join(training.outputs)

    assert training.left_out > 0
    assert "rollout left out of the update: the grader gave no readable scores in 3 tries" in output
    assert "rollout left out of the update: the grader gave no readable scores within 30 s" in output
    counted = [int(float(count)) for count in re.findall(r"experience_pipeline/ungraded_rollouts': ([0-9.]+)", output)]
    assert sum(counted) > 0
    assert not re.search(r"reward/mean': nan", output)
    assert not re.search(r"(pg_loss|final_loss)': nan", output)


def test_changed_settings_are_refused_before_anything_starts_and_named(training, service, recipe):
    env = {**service, "TRINITY_CHECKPOINT_ROOT_DIR": str(training.job.parents[1]), "LEARN2ASK_SEED": "0"}
    changed = [*recipe, "--batch_size=8", "--grader=offline"]

    done = subprocess.run(changed, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 2
    assert "cannot go on from step 4" in done.stdout
    assert "--batch_size was 4, is now 8; --grader was openai, is now offline" in done.stdout


def test_no_key_is_in_anything_a_run_leaves_behind_rays_dumps_included(training, service):
    left = [file for folder in (training.job, training.ray) for file in folder.rglob("*") if file.is_file()]

    assert any("runtime_env" in file.name for file in left)  # Ray's own record of what workers are started with
    for key in (service["TINKER_API_KEY"], GRADER_KEY):
        assert not [file for file in left if key.encode() in file.read_bytes()]
        assert not [output for output in training.outputs if key in output]


def test_the_curves_of_both_parts_can_be_drawn(training, tmp_path):
    run(
        ["-m", "tuner.learn_to_ask.training.plot_training", training.job, "--output", tmp_path / "curves.png"],
        env=os.environ,
    )

    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_script_3_evaluates_what_the_runs_folder_holds(training, service, tasks, tmp_path):
    lines = (tasks / "test.jsonl").read_text().splitlines(keepends=True)[:6]
    (tmp_path / "few.jsonl").write_text("".join(lines))
    run(
        [
            RECIPE / "data_prepare" / "3_rollout_then_evaluate.py",
            f"--eval_model_path={training.job}",
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
    assert all(f"{training.job}, step 4" in record["policy"] for record in records)


def test_segmenting_is_what_training_saw(tasks):
    # The staged tasks are samples of the logs: every context is one that segmentation cuts.
    from tuner.learn_to_ask.core.records import Session

    sessions = read_jsonl(
        RECIPE / "sample_data" / "train_origin.jsonl", Session, unique_key="session_id", report=ReadReport()
    )
    contexts = {sample.cid: sample.messages for session in sessions for sample in segment(session)}

    trained_on = list(read_jsonl(tasks / "train.jsonl", Task, unique_key="cid", report=ReadReport()))

    assert trained_on
    assert all(contexts[task.cid] == task.messages for task in trained_on)
