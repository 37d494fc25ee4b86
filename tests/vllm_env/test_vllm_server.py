"""vLLM's OpenAI-compatible server with a tiny random model, asked by plain HTTP and by the openai engine."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("vllm.entrypoints.llm")  # `vllm` alone could be this folder

from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.quickstart.processes import child_process, free_port, wait_for_server

CONTEXT = 256
START_SECONDS = 300


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a running server."""
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)),
        *("--model", str(model), "--served-model-name", "tiny", "--max-model-len", str(CONTEXT)),
        *("--dtype", "float32", "--enforce-eager"),
    ]
    with child_process(command, log=log, env=dict(os.environ)) as process:
        wait_for_server(process, f"http://127.0.0.1:{port}/health", log=log, timeout=START_SECONDS)
        yield f"http://127.0.0.1:{port}/v1"


def conversation(key: int, content: str = "My throat hurts") -> Request:
    return Request(key, [{"role": "user", "content": f"{content} {key}"}])


def test_the_server_takes_n_and_repetition_penalty(server):
    body = {
        "model": "tiny",
        "messages": conversation(0).messages,
        "n": 2,
        "max_tokens": 8,
        "temperature": 1.0,
        "repetition_penalty": 1.2,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    response = httpx.post(f"{server}/chat/completions", json=body, timeout=60, trust_env=False)
    assert response.is_success, response.text
    assert len(response.json()["choices"]) == 2


def test_the_openai_engine_runs_on_it(server):
    address = pytest.importorskip("tuner.learn_to_ask.engines.openai_address")
    openai_engine = pytest.importorskip("tuner.learn_to_ask.engines.openai_engine")
    sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=8, repetition_penalty=1.2, n=2)
    engine = openai_engine.OpenAIEngine(
        address.Endpoint(base_url=server, model="tiny", api_key_env="NO_KEY_FOR_A_LOCAL_SERVER")
    )
    try:
        requests = [*(conversation(key) for key in range(100)), conversation(100, "much " * 1000)]
        replies = {reply.key: reply for reply in engine.generate(requests, sampling)}
    finally:
        engine.close()
    assert replies.keys() == set(range(101))
    assert replies[100].error == "prompt too long (HTTP 400)"  # beyond the context, the others go on
    for key in range(100):
        assert len(replies[key].texts) == 2
        assert 0 < replies[key].completion_tokens <= 16 and replies[key].prompt_tokens > 5


def test_both_engines_send_the_same_prompt_and_get_the_same_greedy_answer(server, model):
    address = pytest.importorskip("tuner.learn_to_ask.engines.openai_address")
    openai_engine = pytest.importorskip("tuner.learn_to_ask.engines.openai_engine")
    from tuner.learn_to_ask.engines.vllm import VLLMEngine

    greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=8)
    answers = []
    for engine in (
        openai_engine.OpenAIEngine(address.Endpoint(base_url=server, model="tiny")),
        VLLMEngine(str(model), seed=0, max_model_len=CONTEXT, dtype="float32", enforce_eager=True),
    ):
        try:
            replies = engine.generate([conversation(key) for key in range(4)], greedy)
            answers.append({reply.key: (reply.texts, reply.prompt_tokens) for reply in replies})
        finally:
            engine.close()
    assert answers[0] == answers[1]
