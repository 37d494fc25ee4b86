"""Replicas of a real vLLM on a Ray cluster of two fake nodes."""

from pathlib import Path

import pytest

pytest.importorskip("vllm.entrypoints.llm")  # `vllm` alone could be this folder

from fake_cluster import fake_cluster

from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.replicas.start import ReplicaFlags, check_replicas, start_replicas
from tuner.learn_to_ask.engines.vllm import VLLMEngine
from tuner.learn_to_ask.models.model_source import find_model
from tuner.learn_to_ask.prompt import rollout_messages

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=12)
OPTIONS = {
    "tensor_parallel_size": None,
    "max_model_len": 512,
    "gpu_memory_utilization": 0.9,
    "dtype": "float32",
    "trust_remote_code": False,
}


@pytest.fixture(scope="module")
def address(vllm_environment):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHDYNAMO_DISABLE", "1")  # compiling takes a minute for each replica
        with fake_cluster(1, 1) as cluster:
            yield cluster.address


def conversations(count: int) -> list[Request]:
    said = [f"My throat has hurt for {key} days" for key in range(count)]
    return [Request(key, rollout_messages([{"role": "user", "content": text}], "Ra")) for key, text in enumerate(said)]


def test_two_replicas_answer_as_one_engine_does(model: Path, address, capfd):
    source, flags = (
        find_model(str(model), flag="--model_path"),
        ReplicaFlags(replicas="auto", flag="--replicas", ray_address=address),
    )
    engine = VLLMEngine(str(model), seed=0, max_model_len=512, dtype="float32", enforce_eager=True)
    expected = {reply.key: reply for reply in engine.generate(conversations(200), GREEDY)}
    engine.close()

    check_replicas(source, OPTIONS, flags)
    pool = start_replicas(source, OPTIONS, seed=0, flags=flags)
    replies = {reply.key: reply for reply in pool.generate(conversations(200), GREEDY)}
    pool.close()

    assert replies == expected
    assert "2 of 2" in capfd.readouterr().err
