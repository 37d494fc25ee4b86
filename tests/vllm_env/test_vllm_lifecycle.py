"""Loading, releasing and losing a vLLM engine."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("vllm.entrypoints.llm")  # `vllm` alone could be this folder

from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.retrying import Usage, ask
from tuner.learn_to_ask.engines.tensor_parallel import Heads
from tuner.learn_to_ask.engines.vllm import VLLMEngine, installed
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.prompt import grading_messages, rollout_messages

SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_tokens=8, repetition_penalty=1.2, n=2)
DIALOGUE = [{"role": "user", "content": "I have a sore throat"}]


def load(model: Path) -> VLLMEngine:
    return VLLMEngine(str(model), seed=0, max_model_len=1024, dtype="float32", enforce_eager=True)


def rollouts(engine: VLLMEngine, count: int) -> Iterator[tuple[int, list[str]]]:
    requests = (Request(key, rollout_messages(DIALOGUE, "Ra+Rs")) for key in range(count))
    for reply in engine.generate(requests, SAMPLING):
        assert any(reply.cut_off)  # a random model never comes to its end
        yield reply.key, reply.texts


def test_a_policy_makes_room_for_a_grader_in_the_same_process(model):
    policy = load(model)
    texts = dict(rollouts(policy, 20))
    policy.close()
    policy.close()  # closing twice does no harm
    assert policy._llm is None and not psutil.Process().children(recursive=True)

    grader = load(model)
    requests = (Request(key, grading_messages(DIALOGUE, texts[key][0], "symptom: cough")) for key in texts)
    usage = Usage()
    parsed = list(ask(grader, requests, sampling=SAMPLING, parse=lambda texts: None, max_tries=2, usage=usage))
    grader.close()
    assert len(parsed) == 20
    assert usage.failed == {"cut off at max_tokens": 20} and usage.retried == 20


def test_an_engine_process_that_dies_ends_the_run_in_one_line(model, monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # vLLM's default
    before = set(psutil.Process().children(recursive=True))
    engine = load(model)
    started = [child for child in psutil.Process().children(recursive=True) if child not in before]
    answers = rollouts(engine, 5000)
    next(answers)
    for child in started:
        child.kill()
    with pytest.raises(UserError, match=r"engine process died.*--resume"):
        list(answers)
    engine.close()
    assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    monkeypatch.undo()
    second = load(model)
    assert len(list(rollouts(second, 3))) == 3
    second.close()


RUN_FOR_EVER = """
import itertools, sys
from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.vllm import VLLMEngine

if __name__ == "__main__":
    engine = VLLMEngine(sys.argv[1], seed=0, dtype="float32", enforce_eager=True)
    requests = (Request(key, [{"role": "user", "content": "hello"}]) for key in itertools.count())
    for reply in engine.generate(requests, Sampling(temperature=1.0, top_p=1.0, max_tokens=8)):
        print("answered", flush=True)
"""


def test_nothing_of_vllm_outlives_a_killed_run(model, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # vLLM's default
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    script = tmp_path / "run.py"
    script.write_text(RUN_FOR_EVER)
    descendants: list[psutil.Process] = []
    with subprocess.Popen([sys.executable, str(script), str(model)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any(line == "answered\n" for line in process.stdout), "the run ended before it answered"
            descendants = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()
    assert descendants
    _, alive = psutil.wait_procs(descendants, timeout=30)
    for left in alive:
        left.kill()
    assert not alive


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nothing_here", "no such model folder"),
        ("without_tokenizer", "no chat template; choose an instruct or chat model|tokenizer cannot be loaded"),
        ("broken", "vLLM cannot run it"),
    ],
)
def test_an_unusable_model_is_one_clear_line(model, tmp_path, folder, message):
    shutil.copytree(model, tmp_path / "broken")
    (tmp_path / "without_tokenizer").mkdir()
    shutil.copy(model / "config.json", tmp_path / "without_tokenizer")
    (tmp_path / "broken" / "config.json").write_text('{"architectures": ["NoSuchModel"], "model_type": "qwen2"}')
    with pytest.raises(UserError, match=message) as caught:
        VLLMEngine(str(tmp_path / folder), seed=0)
    assert "\n" not in str(caught.value)


def test_settings_the_model_cannot_run_with_are_one_clear_line(model):
    with pytest.raises(UserError, match="max_model_len") as caught:
        VLLMEngine(str(model), seed=0, max_model_len=1_000_000, dtype="float32", enforce_eager=True)
    assert "\n" not in str(caught.value)


def test_a_hub_id_that_cannot_be_had_is_one_clear_line():
    with pytest.raises(UserError, match="no/such-model: its tokenizer cannot be loaded") as caught:
        VLLMEngine("no/such-model", seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("gpus", "heads", "kv_heads", "usable"),
    [
        (0, 28, 4, 1),
        (1, 28, 4, 1),
        (8, 28, 4, 4),  # Qwen2.5-7B on 8 GPUs
        (8, 40, 8, 8),  # Qwen2.5-32B
        (6, 40, 8, 4),
        (8, 32, 4, 8),  # fewer key-value heads than GPUs: copied
        (3, 14, 2, 2),
    ],
)
def test_the_model_is_spread_over_as_many_gpus_as_its_heads_allow(gpus, heads, kv_heads, usable):
    assert Heads(heads, kv_heads).fitting_gpus(gpus) == usable


def test_a_folder_called_vllm_is_no_vllm(tmp_path, monkeypatch):
    assert installed()
    (tmp_path / "vllm").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "vllm")
    assert not installed()
