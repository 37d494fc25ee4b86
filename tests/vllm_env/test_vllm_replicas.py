"""Replicas of a real vLLM on a Ray cluster of two fake nodes."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytest.importorskip("vllm.entrypoints.llm")  # `vllm` alone could be this folder

from fake_cluster import fake_cluster
from ray_head import LOOPBACK

from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.replicas.nodes import JoinedCluster, check_nodes
from tuner.learn_to_ask.engines.replicas.plan import ReplicaFlags
from tuner.learn_to_ask.engines.replicas.start import check_replicas, start_replicas
from tuner.learn_to_ask.engines.vllm import VLLMEngine
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_source import find_model
from tuner.learn_to_ask.prompt import rollout_messages

PACKAGE = Path(__file__).parents[2] / "tuner" / "learn_to_ask"
EXTRACT = PACKAGE / "data_prepare" / "1_info_extract_pipeline.py"
SAMPLE_LOGS = PACKAGE / "sample_data" / "train_origin.jsonl"
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=12)
OPTIONS = {
    "tensor_parallel_size": None,
    "max_model_len": 512,
    "gpu_memory_utilization": 0.9,
    "dtype": "float32",
    "trust_remote_code": False,
    "enforce_eager": True,
}

# Where --enforce_eager cannot be said: compiling takes a minute for each replica.
UNCOMPILED = {"TORCHDYNAMO_DISABLE": "1", "VLLM_USE_AOT_COMPILE": "0"}


@pytest.fixture(scope="module")
def address(vllm_environment):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in UNCOMPILED.items():
            patch.setenv(name, value)
        with fake_cluster(1, 1) as cluster:
            yield cluster.address


def conversations(count: int) -> list[Request]:
    said = [f"My throat has hurt for {key} days" for key in range(count)]
    return [Request(key, rollout_messages([{"role": "user", "content": text}], "Ra")) for key, text in enumerate(said)]


@pytest.fixture(scope="module")
def pool(model: Path, address):
    source = find_model(str(model), flag="--model_path")
    flags = ReplicaFlags(replicas="auto", flag="--replicas", ray_address=address)
    check_replicas(source, OPTIONS, flags)
    pool = start_replicas(source, OPTIONS, seed=0, flags=flags)
    yield pool
    pool.close()


def test_a_script_with_replicas_says_the_same_as_with_one_engine(model: Path, address, tmp_path):
    """Given a random model, whose answers are all cut off, when script 1 asks it, then it says so.

    The first, for it needs the GPUs that the pool of the others holds from then on.
    """
    (tmp_path / "in.jsonl").write_text("".join(SAMPLE_LOGS.read_text().splitlines(keepends=True)[:12]))
    (tmp_path / "sitecustomize.py").write_text(LOOPBACK)
    command = [sys.executable, str(EXTRACT), "--input_file", "in.jsonl", "--output_file", "out.jsonl"]
    command += ["--model_path", str(model), "--dtype", "float32", "--temperature", "0", "--max_tokens", "12"]
    env = {**os.environ, **UNCOMPILED, "PYTHONPATH": str(tmp_path)}

    def error(*flags: str) -> tuple[str, str]:
        done = subprocess.run(
            [*command, *flags], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 2, done.stderr
        (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return said.partition(", for example")[0], done.stderr

    one, _ = error()
    two, told = error("--replicas", "2", "--ray_address", address)

    assert one == two
    assert "no request was answered: cut off at max_tokens" in two
    assert told.count("of 1: 1 replica x 1 GPU") == 2


def test_two_replicas_answer_as_one_engine_does(model: Path, pool):
    engine = VLLMEngine(str(model), seed=0, max_model_len=512, dtype="float32", enforce_eager=True)
    expected = {reply.key: reply for reply in engine.generate(conversations(200), GREEDY)}
    engine.close()

    replies = [*pool.generate(conversations(200), GREEDY)]

    assert len(replies) == 200
    assert {reply.key: reply for reply in replies} == expected
    shares = [str(said).split()[0] for title, said in pool.summary() if title.startswith("replica ")]
    assert sorted(map(int, shares)) == [100, 100]
    assert dict(pool.summary())["prompts shortened"] == 0


def test_settings_that_no_engine_takes_are_told_in_its_words(pool):
    with pytest.raises(UserError, match=r"leave no room for a prompt in a context of 512: raise max_model_len"):
        next(pool.generate(conversations(3), Sampling(temperature=0.0, top_p=1.0, max_tokens=512)))


def test_a_replica_killed_in_mid_run_costs_no_answer(pool):
    replies = pool.generate(conversations(3000), GREEDY)
    keys = [reply.key for reply in itertools.islice(replies, 300)]

    victim = next(child for child in psutil.Process().children(recursive=True) if "ray::Replica" in child.name())
    victim.kill()
    keys += [reply.key for reply in replies]

    assert sorted(keys) == list(range(3000))
    assert sum("died" in str(said) for _, said in pool.summary()) == 1


def test_a_model_that_a_node_does_not_see_is_named_before_anything_is_loaded(address):
    cluster = JoinedCluster(address, setting="--ray_address")
    try:
        with pytest.raises(
            UserError, match=r"/no/model: not seen by node 127.0.0.1 \(\w+\), 127.0.0.1 \(\w+\); put it on"
        ):
            check_nodes(cluster.nodes(), ["/no/model"], flag="--replicas")
    finally:
        cluster.close()
