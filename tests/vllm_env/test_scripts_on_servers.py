"""Scripts 1 and 3 from end to end on servers that no one here wrote, with a real pretrained model.

`vllm serve` offers SmolLM2, and LiteLLM's proxy passes requests on to it. The model is far too small for the work: it
extracts and grades readably only where the server is told to keep it to a schema, and not at all otherwise.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm.entrypoints.llm")  # `vllm` alone could be this folder

from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.engines.question_rules import count_questions
from tuner.learn_to_ask.quickstart.processes import child_process, free_port, wait_for_server

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENT = REPOSITORY / ".venv" / "bin"
SCRIPTS = REPOSITORY / "tuner" / "learn_to_ask" / "data_prepare"
SAMPLE_LOGS = REPOSITORY / "tuner" / "learn_to_ask" / "sample_data" / "train_origin.jsonl"
START_SECONDS = 300

ITEMS = {"type": "array", "items": {"enum": ["symptom: dry cough", "symptom severity: mild"]}, "maxItems": 2}
EXTRACTION = {"type": "object", "properties": {"items": {**ITEMS, "minItems": 1}}, "required": ["items"]}
GRADE = {
    "type": "object",
    "properties": {"format_score": {"enum": [0.0, 0.5, 1.0]}, "content_score": {"enum": [0.0, 0.5, 1.0]}},
    "required": ["format_score", "content_score"],
}
CHOICE = {"type": "array", "items": {"enum": list(range(1, 31))}, "minItems": 1, "maxItems": 3}


def schema(wanted: dict) -> str:
    """What --extra_json takes to have a server keep a model to a schema."""
    return json.dumps({"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}})


@contextlib.contextmanager
def running(command: list[str], *, health: str, log: Path, env: dict[str, str]) -> Iterator[None]:
    """A server, from when it answers until the end of the block."""
    with child_process(command, log=log, env={**os.environ, **env}) as process:
        wait_for_server(process, health, log=log, timeout=START_SECONDS)
        yield


@pytest.fixture(scope="module")
def vllm_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of vLLM's server."""
    model = REPOSITORY / "runs" / "smollm2" / "model"  # the second quickstart's, kept from one run to the next
    made = subprocess.run(
        [CLIENT / "python", "-m", "tuner.learn_to_ask.quickstart.smollm2", "--folder", model],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log.txt"
    command = [
        # What `vllm serve` starts; that command looks for a distribution of this name, which the CPU build is not.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--served-model-name", "smollm2"),
        *("--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048", "--dtype", "float32"),
        "--enforce-eager",
    ]
    with running(command, health=f"http://127.0.0.1:{port}/health", log=log, env={}):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def litellm_proxy(vllm_serve: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of LiteLLM's proxy before that server."""
    folder, port = tmp_path_factory.mktemp("litellm"), free_port()
    behind = {"model": "openai/smollm2", "api_base": vllm_serve, "api_key": "none"}
    config = {"model_list": [{"model_name": "smollm2", "litellm_params": behind}]}
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        str(CLIENT / "litellm"),
        *("--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)),
    ]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    with running(command, health=f"http://127.0.0.1:{port}/health/liveliness", log=folder / "log.txt", env=env):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=["vllm_serve", "litellm_proxy"])
def server(request: pytest.FixtureRequest) -> str:
    """Each server in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """Two sample sessions."""
    file = tmp_path / "sessions.jsonl"
    with SAMPLE_LOGS.open(encoding="utf-8") as logs:
        file.write_text("".join(line for line, _ in zip(logs, range(2), strict=False)), encoding="utf-8")
    return file


def script(name: str, *flags: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OPENAI_API_KEY": "sk-local"}
    return subprocess.run(
        [CLIENT / "python", SCRIPTS / name, *map(str, flags)], capture_output=True, text=True, env=env, check=False
    )


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def extract(server: str, sessions: Path, output: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return script(
        "1_info_extract_pipeline.py",
        *("--input_file", sessions, "--output_file", output, "--base_url", server, "--model", "smollm2"),
        *flags,
    )


def evaluate(server: str, test: Path, folder: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return script(
        "3_rollout_then_evaluate.py",
        *("--test_file_path", test, "--rollout_file_path", folder / "rollouts.jsonl"),
        *("--eval_file_path", folder / "eval.jsonl", "--rollout_repeat", 2, "--max_retries", 8),
        # One sentence each: left alone, the model goes on for hundreds of tokens.
        *("--eval_base_url", server, "--eval_model", "smollm2", "--max_tokens", 128),
        *("--eval_extra_json", json.dumps({"stop": [".", "?", "\n"]})),
        *("--grader_base_url", server, "--grader_model", "smollm2", "--grader_max_tokens", 64),
        *flags,
    )


def test_scripts_1_2_and_3_run_on_it(server, sessions, tmp_path):
    done = extract(server, sessions, tmp_path / "processed.jsonl", "--extra_json", schema(EXTRACTION))
    assert done.returncode == 0, done.stdout + done.stderr
    samples = lines(tmp_path / "processed.jsonl")
    assert any(sample["info_set"] for sample in samples)
    assert {item for sample in samples for item in sample["info_set"]} <= {
        "symptom: dry cough",
        "symptom severity: mild",
    }

    done = script(
        "2_build_dataset.py", "--input_file", tmp_path / "processed.jsonl", "--output_file", tmp_path / "test.jsonl"
    )
    assert done.returncode == 0, done.stdout + done.stderr

    done = evaluate(server, tmp_path / "test.jsonl", tmp_path, "--grader_extra_json", schema(GRADE))
    assert done.returncode == 0, done.stdout + done.stderr
    evaluated = lines(tmp_path / "eval.jsonl")
    assert len(evaluated) == len(lines(tmp_path / "test.jsonl")) > 0
    assert all(len(record["rollouts"]) == 2 for record in lines(tmp_path / "rollouts.jsonl"))
    assert "Traceback" not in done.stderr


def test_a_model_holds_whole_interviews_with_a_model_as_the_user(vllm_serve, sessions, tmp_path):
    """It may choose whatever note it likes: nothing that the log does not hold is ever told."""
    samples, interviews = tmp_path / "samples.jsonl", tmp_path / "interviews.jsonl"
    done = script("1_info_extract_pipeline.py", "--engine=offline", "--input_file", sessions, "--output_file", samples)
    assert done.returncode == 0, done.stdout + done.stderr
    command = [
        *(CLIENT / "python", "-m", "tuner.learn_to_ask.evaluation.interview", "--max_turns", 3),
        *("--test_file_path", samples, "--output_file", interviews, "--max_retries", 8),
        *("--eval_base_url", vllm_serve, "--eval_model", "smollm2", "--max_tokens", 128),
        *("--eval_extra_json", json.dumps({"stop": [".", "?", "\n"], "include_stop_str_in_output": True})),
        *("--user", "llm", "--user_base_url", vllm_serve, "--user_model", "smollm2"),
        *("--user_extra_json", schema(CHOICE)),
    ]
    env = {**os.environ, "OPENAI_API_KEY": "sk-local"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env, cwd=REPOSITORY, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    held = lines(interviews)
    assert held and all(one["user"].startswith("llm:openai:smollm2") for one in held)
    turns = [(one, turn) for one in held for turn in one["held"]["turns"]]
    assert any(turn["facts"] for _, turn in turns)
    domain = load_domain("medical_en")
    for one, turn in turns:
        told = [one["facts"][fact]["said"] for fact in turn["facts"]]
        opening = {message["content"] for message in one["messages"] if message["role"] == "user"}
        assert len(told) <= max(1, count_questions(turn["question"]))
        assert turn["answer"] in (
            {domain.listed(list(dict.fromkeys(told)))} if told else opening | {domain.unknown_answer}
        )
    assert "user: tokens in / out" in done.stdout
    assert "coverage at stop" in done.stdout


def test_what_such_a_model_says_of_itself_is_shown_and_nothing_is_made_of_it(vllm_serve, sessions, tmp_path):
    done = extract(vllm_serve, sessions, tmp_path / "processed.jsonl", "--max_tokens", 64, "--max_retries", 0)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no request was answered" in done.stderr
    assert ", for example " in done.stderr
    assert not (tmp_path / "processed.jsonl").exists()
