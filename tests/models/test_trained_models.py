"""Trained models as training leaves them, made by the real frameworks, converted, loaded and asked."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fault_server import FaultServer
from fsdp_shards import save_shards
from medical import COMPLAINTS, MEDICAL

from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.react import ReactEngine
from tuner.learn_to_ask.engines.transformers import TransformersEngine
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.checkpoint_conversion import convert_shards
from tuner.learn_to_ask.models.model_files import missing_model_files
from tuner.learn_to_ask.models.model_source import CONVERTED, find_model
from tuner.learn_to_ask.prompt import rollout_messages
from tuner.learn_to_ask.quickstart.base_policy import BasePolicyConfig, build_base_policy

ROOT = Path(__file__).parents[2]
EVALUATE = ROOT / "tuner" / "learn_to_ask" / "data_prepare" / "3_rollout_then_evaluate.py"
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=12)
QUESTIONS = [Request(0, rollout_messages([{"role": "user", "content": "my throat hurts"}], "Ra+Rs"))]

pytestmark = pytest.mark.slow


def tasks(count):
    return [
        Task(
            cid=f"{number}_0",
            session_id=str(number),
            diagn=COMPLAINTS[number % len(COMPLAINTS)].diagnosis,
            messages=[{"role": "user", "content": f"it started {number} days ago"}],
            decision_truth="stop",
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny Qwen3 that answers every dialogue in another way."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("model")
    config = BasePolicyConfig(hidden_size=32, layers=2, vocabulary_size=400, steps=4, batch_size=4)
    build_base_policy(folder, tasks(8), MEDICAL, config, seed=0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)  # so hardly taught, it would say the same to all
    # Every third token ends an answer, or its answers would all be cut off.
    model.config.eos_token_id = model.generation_config.eos_token_id = list(range(2, config.vocabulary_size, 3))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved_checkpoint(model, tmp_path_factory):
    """A checkpoint of two FSDP ranks without an export, as Trinity's default writes it."""
    folder = tmp_path_factory.mktemp("run") / "global_step_3"
    save_shards(model, folder / "actor", ranks=2)
    return folder


@pytest.fixture
def checkpoint(saved_checkpoint, tmp_path):
    """A copy of it that a test may convert."""
    folder = tmp_path / "run" / "global_step_3"
    return shutil.copytree(saved_checkpoint, folder)


def weights(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()


def find(path):
    return find_model(str(path), flag="--eval_model_path")


def answer(source):
    engine = TransformersEngine(source.model, batch_size=2, seed=0, adapter=source.adapter)
    [reply] = engine.generate(QUESTIONS, GREEDY)
    engine.close()
    return reply.texts


# FSDP shards


def test_shards_become_the_model_that_was_saved_and_are_converted_only_once(checkpoint, model, capfd):
    import torch

    # Given shards of which each rank holds half of the rows
    assert {file.name for file in (checkpoint / "actor").glob("*.pt")} == {
        "model_world_size_2_rank_0.pt",
        "model_world_size_2_rank_1.pt",
    }
    # When the run's folder is named
    source = find(checkpoint.parent)
    convert_shards(source)
    # Then the model beside the shards has the original's weights in bfloat16, and its tokenizer
    converted = checkpoint / "actor" / CONVERTED
    assert Path(source.model) == converted
    assert not missing_model_files(converted)
    original, result = weights(model), weights(converted)
    assert original.keys() == result.keys()
    assert all(torch.equal(original[name].to(torch.bfloat16), result[name]) for name in original)
    # And it is not made again, nothing is left over, and the checkpoint itself is as it was
    before = (converted / "model.safetensors").stat().st_mtime_ns
    convert_shards(find(checkpoint))
    assert (converted / "model.safetensors").stat().st_mtime_ns == before
    assert {entry.name for entry in (checkpoint / "actor").iterdir()} == {
        *("fsdp_config.json", "huggingface", "model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"),
        *(CONVERTED, f"{CONVERTED}.lock"),
    }
    assert missing_model_files(checkpoint / "actor" / "huggingface") == ["weights (*.safetensors or *.bin)"]
    assert capfd.readouterr().err.count("once for this checkpoint") == 1


def test_a_step_that_the_run_wrote_again_is_converted_again(checkpoint):
    source = find(checkpoint)
    convert_shards(source)
    first = (Path(source.model) / "config.json").stat()
    later = first.st_mtime + 10
    os.utime(checkpoint / "actor" / "model_world_size_2_rank_1.pt", (later, later))
    convert_shards(source)
    assert (Path(source.model) / "config.json").stat().st_ino != first.st_ino


def test_a_conversion_that_is_killed_leaves_nothing_that_looks_finished(checkpoint):
    # Given a conversion that is killed once its converter runs
    code = f"from test_trained_models import *; convert_shards(find({str(checkpoint)!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'helpers'}:{Path(__file__).parent}"},
        start_new_session=True,
    )
    log = checkpoint / "actor" / f"{CONVERTED}.partial" / "converter.log"
    deadline = time.monotonic() + 120
    while not log.exists():
        assert time.monotonic() < deadline and process.poll() is None
        os.sched_yield()
    process.kill()
    process.wait()
    assert not (checkpoint / "actor" / CONVERTED).exists()
    # When it is asked for again, then it waits for the orphaned converter and does it from the start
    source = find(checkpoint)
    convert_shards(source)
    assert not missing_model_files(Path(source.model))
    assert not log.parent.exists()


def test_shards_that_the_converter_cannot_read_are_an_error_with_its_words(checkpoint):
    (checkpoint / "actor" / "model_world_size_2_rank_1.pt").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"trinity convert failed .*lacks weights.*converter\.log"):
        convert_shards(find(checkpoint))
    assert not (checkpoint / "actor" / CONVERTED).exists()


# LoRA adapters


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    """An adapter with weights large enough to change the answers, saved by peft."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    return folder


def merged_by_hand(model, adapter, folder):
    """The base model with W + alpha / r * B A in place of every adapted W, as a model of its own."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(model)
    state, changes = base.state_dict(), load_file(adapter / "adapter_model.safetensors")
    downs = {name: tensor for name, tensor in changes.items() if ".lora_A." in name}
    assert len(downs) == 4  # two layers, two matrices each
    for name, down in downs.items():
        up = changes[name.replace(".lora_A.", ".lora_B.")]
        state[name.removeprefix("base_model.model.").replace(".lora_A.", ".")] += 8 / 4 * up @ down
    base.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def test_an_adapter_answers_as_a_model_merged_by_hand(model, adapter, tmp_path):
    import torch

    source = find(adapter)
    engine = TransformersEngine(source.model, batch_size=2, seed=0, adapter=source.adapter)
    by_hand = weights(merged_by_hand(model, adapter, tmp_path / "merged"))
    merged = engine._model.state_dict()
    assert merged.keys() == by_hand.keys()
    assert all(torch.allclose(merged[name], by_hand[name], atol=1e-6) for name in by_hand)
    engine.close()

    assert answer(source) == answer(find(tmp_path / "merged")) != answer(find(model))


def test_an_adapter_as_trinity_writes_it_into_a_checkpoint_answers_the_same(adapter, tmp_path):
    from peft import LoraConfig

    # Given the dataclass of the configuration as JSON, where peft itself would leave parts out
    folder = tmp_path / "global_step_5" / "actor" / "lora_adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    config = asdict(LoraConfig.from_pretrained(adapter))
    config |= {"task_type": config["task_type"], "peft_type": config["peft_type"].value}
    config["target_modules"] = list(config["target_modules"])
    (folder / "adapter_config.json").write_text(json.dumps(config))

    assert answer(find(tmp_path)) == answer(find(adapter))


def test_an_adapter_of_another_model_is_refused(model, adapter, tmp_path):
    config = BasePolicyConfig(hidden_size=64, layers=2, vocabulary_size=400, steps=4, batch_size=4)
    build_base_policy(tmp_path, tasks(8), MEDICAL, config, seed=0)
    source = find(adapter)
    with pytest.raises(UserError, match="does not fit its base model"):
        TransformersEngine(str(tmp_path), batch_size=2, seed=0, adapter=source.adapter)


def test_an_adapter_that_lacks_weights_of_its_own_is_refused_instead_of_filled_at_random(adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    changes = load_file(adapter / "adapter_model.safetensors")
    save_file(dict(list(changes.items())[:-1]), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    with pytest.raises(UserError, match="holds one of two matrices for: model"):
        answer(find(tmp_path))


# The agent


def test_the_agent_answers_with_a_real_model_what_the_model_answers_itself(model):
    # Greedy answers to the same prompt are the same, alone or in a batch with others.
    dialogues = [[{"role": "user", "content": f"my throat has hurt for {days} days"}] for days in range(5)]
    engine = TransformersEngine(str(model), batch_size=4, seed=0)
    direct = [Request(key, rollout_messages(dialogue, "Ra+Rs")) for key, dialogue in enumerate(dialogues)]
    replies = list(engine.generate(direct, GREEDY))
    by_itself = {reply.key: [] if any(reply.cut_off) else reply.texts for reply in replies}
    agents = ReactEngine(engine, "Ra+Rs")
    alone = [Request(key, dialogue) for key, dialogue in enumerate(dialogues)]
    by_agents = {reply.key: reply.texts for reply in agents.generate(alone, replace(GREEDY, n=2))}
    agents.close()
    assert by_agents == {key: texts * 2 for key, texts in by_itself.items()}
    assert len({texts[0] for texts in by_itself.values() if texts}) > 1


# The script


def test_a_local_grader_grades_what_an_endpoint_rolls_out_meanwhile(model, tmp_path):
    # Given a policy on an endpoint and a grader whose answers cannot be read, as it is none
    records = [task.model_copy(update={"decision_truth": "continue"}) for task in tasks(3)]
    (tmp_path / "test.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    with FaultServer(answer=lambda messages: "Do you cough?") as server:
        policy = ("--eval_engine=auto", f"--eval_base_url={server.base_url}", "--eval_model=policy")
        grader = ("--grader_engine=transformers", f"--grader_model_path={model}", "--max_retries=0")
        done = evaluate(tmp_path, "", *policy, *grader)
    # Then all was rolled out, and an evaluation without a single grade is none
    assert done.returncode == 2, done.stderr
    assert len((tmp_path / "rollouts.jsonl").read_text().splitlines()) == 3
    assert re.search(r"eval.jsonl: not written, no request was answered: .*\(\d", done.stderr)
    assert not list(tmp_path.glob("eval.jsonl*"))


def evaluate(folder, model_path, *flags):
    return subprocess.run(
        [
            *(sys.executable, str(EVALUATE), f"--eval_model_path={model_path}", "--eval_engine=transformers"),
            *("--grader_engine=offline", "--test_file_path=test.jsonl", "--rollout_file_path=rollouts.jsonl"),
            *("--eval_file_path=eval.jsonl", "--max_tokens=8", "--rollout_repeat=2", *flags),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_script_3_evaluates_a_runs_newest_checkpoint_and_says_which(checkpoint, tmp_path):
    (tmp_path / "test.jsonl").write_text("".join(task.model_dump_json() + "\n" for task in tasks(3)))
    done = evaluate(tmp_path, "run")
    assert done.returncode == 0, done.stderr
    assert f"--eval_model_path run: step 3, shards in {Path('run/global_step_3/actor')}" in done.stderr
    records = [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text().splitlines()]
    assert {record["policy"] for record in records} == {"transformers:run, step 3"}


def test_an_unfinished_evaluation_of_an_older_checkpoint_is_not_continued_with_a_newer_one(checkpoint, tmp_path):
    # Given an evaluation of step 3 that was killed in the middle
    (tmp_path / "test.jsonl").write_text("".join(task.model_dump_json() + "\n" for task in tasks(3)))
    assert evaluate(tmp_path, "run").returncode == 0
    (tmp_path / "eval.jsonl").unlink()
    [first, *_] = (tmp_path / "rollouts.jsonl").read_text().splitlines()
    (tmp_path / "rollouts.jsonl").unlink()
    journal = [{"fingerprint": {"engine": "transformers:run, step 3"}}, {"index": 0, "failed": 0, "record": first}]
    (tmp_path / "rollouts.jsonl.journal").write_text("".join(json.dumps(line) + "\n" for line in journal))
    # When the run has got to step 4 meanwhile
    checkpoint.rename(checkpoint.with_name("global_step_4"))
    done = evaluate(tmp_path, "run", "--resume")
    assert done.returncode == 2
    assert "engine was transformers:run, step 3, is now transformers:run, step 4" in done.stderr
