"""The ten commands of docs/own-data.md, as they stand there, from a help desk's export to a trained agent."""

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tuner.learn_to_ask.core.labels import parse_info_set, to_task
from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.engines.offline import extract_answer
from tuner.learn_to_ask.prompt import extraction_messages
from tuner.learn_to_ask.quickstart.base_policy import BasePolicyConfig, build_base_policy
from tuner.learn_to_ask.quickstart.pipeline import engine_command
from tuner.learn_to_ask.quickstart.processes import child_process, free_port, wait_for_server
from tuner.learn_to_ask.sample_data.export import SESSIONS
from tuner.learn_to_ask.sample_data.generate import generate_sessions

SUPPORT = load_domain("it_support")
ROOT = Path(__file__).parents[2]
ENGINE_PYTHON = ROOT / ".venv-engine" / "bin" / "python"
ON_A_LAPTOP = """
EXTRACT="--engine offline"
TRAIN="--config tuner/learn_to_ask/quickstart/config.yaml --grader offline --total_steps 1 --batch_size 2 \
  --group_size 2 --learning_rate 1e-3 --max_model_len 512 --max_tokens 48 --inference_engine_num 1"
EVALUATE="--eval_engine tinker --grader_engine offline --sampling trained --max_tokens 48 --rollout_repeat 1"
"""


def commands():
    """Number -> command, out of the page's second block."""
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    block = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)[1]
    parts = re.split(r"^# (\d+) .*\n", block, flags=re.MULTILINE)[1:]
    return {int(number): text for number, text in zip(parts[::2], parts[1::2], strict=True)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a command of the page with the settings of a laptop."""
    work = tmp_path_factory.mktemp("support")
    env = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def run(number, **more):
        settings = f"DOMAIN=it_support WORK={work} MODEL={work / 'policy'} RUN={work / 'runs/Learn2Ask/quickstart'}"
        script = f"set -euo pipefail\n{settings}\n{ON_A_LAPTOP}\n{commands()[number]}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            env={**env, **more},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"command {number}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    run.work = work
    return run


def sample_tasks():
    """Of the domain's sample logs: the export does not say what a chat was about, which the tiny policy has to know."""
    for session in generate_sessions(SUPPORT, count=48, first_id=1, seed=0):
        for sample in segment(Session.model_validate(session)):
            answer = extract_answer(extraction_messages(sample.remaining_chat, SUPPORT), SUPPORT)
            task = to_task(sample.model_copy(update={"info_set": parse_info_set(answer, SUPPORT.information)}))
            if task:
                yield task


def lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_page_has_ten_commands():
    assert list(commands()) == list(range(1, 11))


@pytest.mark.slow
def test_an_export_becomes_a_trained_agent(run):
    work = run.work

    # When the export is converted, then chats that are mixed in the table are sessions, one side apart
    assert "one side only" in run(1)
    sessions = lines(work / "sessions.jsonl")
    assert len({session["session_id"] for session in sessions}) == len(sessions) > 170

    # When they are curated, then what was planted is dropped for its reason, and no phone number is left
    summary = run(2)
    reasons = ("too short", "broken off", "another language", "the same as an earlier", "nearly the same as an earlier")
    for reason in reasons:
        assert f"{reason}" in summary, summary
    curated = (work / "curated.jsonl").read_text(encoding="utf-8")
    assert "jane.miller" not in curated and "555" not in curated
    assert len(lines(work / "curated.jsonl")) == SESSIONS

    # When they are split and labelled, then both sets hold both decisions
    for number in (3, 4, 5, 6):
        run(number)
    for split in ("train", "test"):
        decisions = Counter(task["decision_truth"] for task in lines(work / f"{split}.jsonl"))
        assert set(decisions) == {"continue", "stop"}

    # When a policy is trained on a local service, then it is evaluated before and after and compared
    build_base_policy(work / "policy", list(sample_tasks()), SUPPORT, BasePolicyConfig(steps=80), seed=0)
    port = free_port()
    flags = ("--session-cleanup-interval-sec=-1", '--backend-config={"max_lora_adapters": 4, "max_lora_rank": 16}')
    command = engine_command(ENGINE_PYTHON, work / "policy", port=port, folder=work, flags=flags)
    service = {
        "TINKER_API_KEY": "tml-local",
        "TINKER_BASE_URL": f"http://127.0.0.1:{port}",
        "TRINITY_CHECKPOINT_ROOT_DIR": str(work / "runs"),
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with child_process(command, log=work / "engine.log", env=dict(os.environ)) as engine:
        url = f"{service['TINKER_BASE_URL']}/api/v1/get_server_capabilities"
        wait_for_server(engine, url, log=work / "engine.log", timeout=180)
        assert "0 fatal" in run(7, **service)
        assert re.search(r"steps +1 of 1", run(8, **service))
        run(9, **service)
    assert {line["domain"]["name"] for line in lines(work / "tuned.jsonl")} == {"it_support"}
    assert "tuned − base" in run(10)
    assert (work / "report" / "report.html").is_file()
