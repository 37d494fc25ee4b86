"""What the shipped configs hand to tune(); and a real run on SkyRL's Tinker service, killed and taken up again."""

import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from fault_server import GOOD, HANG, FaultServer
from medical import MEDICAL, grade_answer
from outage_proxy import OutageProxy
from shipped_configs import QWEN_2_5, command_of, without_config
from training_run import (
    ENGINE_PYTHON,
    GRADER_KEY,
    OUTAGE_SECONDS,
    RECIPE,
    Training,
    run,
    wait_for_line,
    wait_until_ahead,
)

from tuner.learn_to_ask import main
from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.engines.chat import Fitting
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.quickstart.base_policy import BasePolicyConfig, build_base_policy
from tuner.learn_to_ask.quickstart.pipeline import engine_command
from tuner.learn_to_ask.quickstart.processes import child_process, free_port, wait_for_server
from tuner.learn_to_ask.ray_cluster import ClusterAddress


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts main.py as a header says, on local models and 16 tasks; returns settings, config and Trinity's config."""
    import agentscope.tuner
    from agentscope.tuner._config import _to_trinity_config

    task = {"session_id": "1", "messages": [{"role": "user", "content": "it hurts"}], "info_truth": "symptom: pain"}
    tasks = [{**task, "cid": f"{number}_0", "decision_truth": ("continue", "stop")[number % 2]} for number in range(16)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in tasks))
    monkeypatch.setattr(main, "of_tokenizer", lambda *_, **__: ((), Fitting.NONE))
    monkeypatch.setattr(main, "cluster_address", lambda _: ClusterAddress(None))
    monkeypatch.setattr(main, "last_checkpoint", lambda _: 10**6)
    monkeypatch.setattr(main, "save_sampler_weights", lambda *_: None)
    monkeypatch.setattr("tuner.learn_to_ask.training.preflight.run.preflight", lambda *_, **__: [])

    def model(name):
        """A folder with what Trinity reads of a model: its architecture."""
        folder = tmp_path / "models" / Path(name).name
        folder.mkdir(parents=True, exist_ok=True)
        hidden, layers, heads, kv_heads, intermediate, vocabulary, tied = QWEN_2_5.get(
            folder.name, (64, 2, 4, 2, 128, 1000, True)
        )
        architecture = {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": intermediate,
            "vocab_size": vocabulary,
            "tie_word_embeddings": tied,
        }
        (folder / "config.json").write_text(json.dumps(architecture))
        return str(folder)

    def start(path, flags=None):
        given, exported = command_of(path)
        flags = given if flags is None else flags
        for name, value in {"TRINITY_CHECKPOINT_ROOT_DIR": str(tmp_path / "checkpoints"), **exported}.items():
            monkeypatch.setenv(name, str(tmp_path / "checkpoints") if name.endswith("ROOT_DIR") else value)
        seen = {}
        train = main.train

        def train_locally(settings, config, money):
            local = dataclasses.replace(
                settings,
                model_path=model(settings.model_path),
                auxiliary_model_path=model(settings.auxiliary_model_path),
                data=tmp_path,
            )
            seen.update(settings=local, config=config)
            return train(local, config, money)

        def tune(**arguments):
            seen["trinity"] = _to_trinity_config(**arguments)

        monkeypatch.setattr(agentscope.tuner, "tune", tune)
        monkeypatch.setattr(main, "train", train_locally)
        monkeypatch.setattr("sys.argv", ["main.py", "--config", str(path), *without_config(flags)])
        main.main()
        monkeypatch.setattr(main, "train", train)
        return seen["settings"], seen["config"], seen["trinity"]

    return start


@pytest.fixture
def cluster(monkeypatch):
    """Fakes where Trinity asks for nodes and GPUs: Ray, and the memory of the first GPU."""
    import ray
    import torch
    from trinity.common.config_validator import GPUMemoryValidator

    def build(nodes, memory):
        alive = [{"alive": True, "Resources": {"GPU": float(gpus), "CPU": 32.0}} for gpus in nodes]
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "nodes", lambda: alive)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))

    def refuse(_, error, timeout=0.0):
        raise error  # Trinity would only ask whoever sits at the terminal

    monkeypatch.setattr(GPUMemoryValidator, "_get_user_choice", refuse)
    return build


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
    build_base_policy(folder, train, MEDICAL, BasePolicyConfig(steps=60), seed=0)
    return folder


@pytest.fixture(scope="module")
def service(base_policy, tmp_path_factory):
    """The environment of a client of the real engine."""
    folder = tmp_path_factory.mktemp("engine")
    port = free_port()
    flags = (
        "--session-cleanup-interval-sec=-1",
        '--backend-config={"max_lora_adapters": 8, "max_lora_rank": 16, "sample_max_num_sequences": 16}',
    )
    command = engine_command(ENGINE_PYTHON, base_policy, port=port, folder=folder, flags=flags)
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


@pytest.fixture(scope="module")
def recipe(base_policy, tasks, tmp_path_factory):
    """The flags of main.py for four steps of 4 tasks x 4 rollouts, a checkpoint every second step."""
    folder = tmp_path_factory.mktemp("config")
    config = (RECIPE / "quickstart" / "config.yaml").read_text()
    assert "LEARN2ASK_ROLLOUT_SECONDS,300" in config
    shorter = config.replace("LEARN2ASK_ROLLOUT_SECONDS,300", "LEARN2ASK_ROLLOUT_SECONDS,60")
    (folder / "config.yaml").write_text(shorter)
    return [
        sys.executable,
        str(RECIPE / "main.py"),
        f"--config={folder / 'config.yaml'}",
        f"--model_path={base_policy}",
        f"--data={tasks}",
        "--total_steps=4",
        "--batch_size=4",
        "--group_size=4",
        "--save_interval_steps=2",
        "--learning_rate=1e-3",
        "--max_model_len=512",
        "--max_tokens=48",
        "--inference_engine_num=1",
        "--grader=openai",
        "--grader_model=judge",
        "--grader_api_key_env=GRADER_KEY",
    ]


@pytest.fixture(scope="module")
def training(service, recipe, tmp_path_factory):
    """Trains in two parts; some grades are prose, and one never comes."""
    prose = set()

    def answer(messages):
        question = messages[-1]["content"].splitlines()[-1]
        if len(question) % 7 == 0:
            prose.add(question)
            return "A fine question, doctor."
        return grade_answer(messages)

    folder = tmp_path_factory.mktemp("training")
    job = folder / "Learn2Ask" / "quickstart"
    ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path may have no more than 107 bytes
    port = int(service["TINKER_BASE_URL"].rpartition(":")[2])
    hung = iter([1])  # the preflight asks first, and must not be the one that hangs
    plan = lambda call: HANG if call.index > 0 and next(hung, None) else GOOD  # noqa: E731
    outputs = []
    try:
        with OutageProxy(port) as proxy, FaultServer(plan, answer=answer) as grader:
            command = [*recipe, f"--grader_base_url={grader.base_url}"]
            env = {
                **service,
                "TINKER_BASE_URL": f"http://127.0.0.1:{proxy.port}",
                "TRINITY_CHECKPOINT_ROOT_DIR": str(folder),
                "LEARN2ASK_SEED": "0",
                "GRADER_KEY": GRADER_KEY,
                "RAY_TMPDIR": str(ray),
            }
            log = folder / "first.log"
            with child_process(command, log=log, env=env) as process:
                wait_for_line(log, process, "Training at step 3 finished")
                wait_until_ahead(job, process, 2)
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                psutil.wait_procs(family, timeout=60)
            outputs.append(log.read_text())
            place = json.loads((job / "explorer_meta.json").read_text())

            log = folder / "second.log"
            with child_process(command, log=log, env=env) as process:
                wait_for_line(log, process, "Explore step 3 started")
                proxy.go_down()
                time.sleep(OUTAGE_SECONDS)  # not a wait for a condition: the outage itself
                proxy.come_back()
                process.wait(timeout=600)
            outputs.append(log.read_text())
            assert process.returncode == 0, outputs[1][-5000:]
            yield Training(job, ray, place, outputs, proxy.refused, len(prose))
    finally:
        shutil.rmtree(ray, ignore_errors=True)
