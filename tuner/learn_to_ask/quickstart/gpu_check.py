"""Makes a small run on this machine's GPUs, kills it, takes it up again, prints one page of it: `make gpu-check`.

Every number of the small run stands at the top. The page is made to be pasted into an issue.
"""

import argparse
import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, run
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.quickstart.processes import end_when, run_to_end, show_log
from tuner.learn_to_ask.ray_cluster import cluster_address, probe_cluster
from tuner.learn_to_ask.training.plot_training import Curves, read_curves
from tuner.learn_to_ask.training.preflight.cluster import suggest_allocation
from tuner.learn_to_ask.training.resume import last_checkpoint

RECIPE = Path(__file__).resolve().parent
NAME = "gpu_check"
STEPS = 2  # killed after the first
SIZES = {"batch_size": 8, "group_size": 4, "max_model_len": 1024, "max_tokens": 128, "learning_rate": 1e-6}
EVALUATED = 16  # samples of the test split
COLOCATED_SHARE = 0.3  # of the memory of a single GPU for the engine; the trainer has the rest
PACKAGES = ("agentscope", "trinity-rft", "verl", "vllm", "torch", "transformers", "ray", "flash-attn", "numpy")
# Phase -> tag of Trinity's metrics, in seconds.
PHASES = {
    "rollouts and grading": "time/wait_explore_step",
    "old and reference log-probabilities": "time/ref",
    "update": "time/update_actor",
    "whole training step": "time/train_step",
    "weight sync": "time/sync_weight",
    "checkpoint": "time/save_checkpoint",
}
FIGURES = {
    "mean reward": "rollout/reward/mean",
    "tokens of a step, mean over the trainer's GPUs": "global_seqlen/mean",
    "tokens a second and trainer GPU": "perf/throughput",
    "trainer's peak GPU memory, GB": "perf/max_memory_allocated_gb",
    "main memory in use, GB": "perf/cpu_memory_used_gb",
}


def allocation_flags(gpus: int, grader: str) -> dict[str, Any]:
    """The engines and the grader that fit a number of GPUs.

    Args:
        gpus: Of all nodes.
        grader: A model to grade with where there are GPUs for it, from three on; `""` grades by rules.

    Raises:
        UserError: Without a GPU.
    """
    if not gpus:
        raise UserError("no GPU found on this machine nor in the Ray cluster; `make quickstart` needs none")
    if not grader or gpus < 3:
        return {"grader": "offline", "inference_engine_num": max(gpus - max(gpus // 4, 1), 1)}
    split = 2 if gpus >= 8 else 1
    engines = int(suggest_allocation(gpus)["inference_engine_num"]) if gpus >= 4 else 1
    return {
        "grader": "auxiliary",
        "auxiliary_model_path": grader,
        "auxiliary_tensor_parallel_size": split,
        "inference_engine_num": engines,
    }


def write_config(folder: Path, *, gpus: int, eager: bool) -> Path:
    """The default config with a sync and a checkpoint after every step.

    Args:
        folder: Gets the file and the checkpoints.
        gpus: With one, engine and trainer share it.
        eager: Engines without CUDA graphs and compiled code, which start faster.
    """
    config = yaml.safe_load((RECIPE / "config.yaml").read_text(encoding="utf-8"))
    config |= {"name": NAME, "checkpoint_root_dir": str(folder / "checkpoints")}
    config["explorer"]["runner_per_model"] = 2
    engine = {"enforce_eager": eager} | ({"gpu_memory_utilization": COLOCATED_SHARE} if gpus == 1 else {})
    config["explorer"] |= {"rollout_model": engine, "auxiliary_models": [{"enforce_eager": eager}]}
    config["synchronizer"] |= {"sync_interval": 1, "sync_timeout": 600}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return file


def count_gpus() -> int:
    """The GPUs of the running cluster, else of this machine."""
    if address := cluster_address(None).address:
        return sum(probe_cluster(address).gpus)
    import torch

    return int(torch.cuda.device_count())


def prepare_data(folder: Path, env: dict[str, str]) -> None:
    """Scripts 1 and 2 on the sample logs, by rules; the test split is cut to a few samples."""
    for split in ("train", "test"):
        origin, processed = RECIPE / "sample_data" / f"{split}_origin.jsonl", folder / f"{split}_processed.jsonl"
        built = folder / "data" / f"{split}.jsonl"
        for script, source, target, more in (
            ("1_info_extract_pipeline.py", origin, processed, ["--engine=offline"]),
            ("2_build_dataset.py", processed, built, []),
        ):
            command = [sys.executable, str(RECIPE / "data_prepare" / script)]
            run_to_end(
                [*command, f"--input_file={source}", f"--output_file={target}", *more],
                log=folder / "logs" / f"{script}.{split}.log",
                env=env,
            )
    test = folder / "data" / "test.jsonl"
    test.write_text("".join(test.read_text(encoding="utf-8").splitlines(keepends=True)[:EVALUATED]), encoding="utf-8")


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """What the small run showed.

    Attributes:
        preflight: The lines of `main.py --check`.
        curves: Trinity's metrics.
        evaluation: The table of script 3.
        seconds: Of both starts of main.py, the second one after the kill.
    """

    preflight: str
    curves: Curves
    evaluation: str
    seconds: tuple[float, float]


def check(folder: Path, model: str, grader: str, *, eval_engine: str, eager: bool) -> Check:
    """Runs everything.

    Args:
        folder: A new one.
        model: The policy.
        grader: See `allocation_flags`.
        eval_engine: Of script 3.
        eager: See `write_config`.
    """
    paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(RECIPE.parents[1]))))
    env = {**os.environ, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"}
    gpus = count_gpus()
    settings = {"model_path": model, "data": folder / "data", **SIZES, **allocation_flags(gpus, grader)}
    settings |= {"total_steps": STEPS, "save_interval_steps": 1}
    prepare_data(folder, env)
    config = write_config(folder, gpus=gpus, eager=eager)
    command = [sys.executable, str(RECIPE / "main.py"), f"--config={config}"]
    command += [f"--{name}={value}" for name, value in settings.items()]
    logs, job = folder / "logs", folder / "checkpoints" / "Learn2Ask" / NAME

    print(f"{gpus} GPUs; logs are in {logs}", flush=True)
    run_to_end([*command, "--check"], log=logs / "preflight.log", env=env)
    started = time.monotonic()
    print("training, to be killed after its first checkpoint ...", flush=True)
    end_when(lambda: last_checkpoint(job) >= 1, command, log=logs / "train_1.log", env=env, timeout=3600)
    killed = time.monotonic()
    print("taking it up again ...", flush=True)
    run_to_end(command, log=logs / "train_2.log", env=env)
    ended = time.monotonic()
    print("evaluating ...", flush=True)
    evaluation = logs / "evaluate.log"
    run_to_end(
        [
            sys.executable,
            str(RECIPE / "data_prepare" / "3_rollout_then_evaluate.py"),
            f"--eval_model_path={job}",
            f"--eval_engine={eval_engine}",
            "--grader_engine=offline",
            f"--max_tokens={SIZES['max_tokens']}",
            "--max_failures=1",  # a small model seldom comes to its end, which says nothing of the GPUs
            f"--test_file_path={folder / 'data' / 'test.jsonl'}",
            f"--rollout_file_path={folder / 'rollout.jsonl'}",
            f"--eval_file_path={folder / 'eval.jsonl'}",
        ],
        log=evaluation,
        env=env,
    )
    if last_checkpoint(job) != STEPS:
        show_log(logs / "train_2.log")
        raise UserError(f"the run reached step {last_checkpoint(job)} of {STEPS}; its logs are in {logs}")
    said = (logs / "preflight.log").read_text(encoding="utf-8", errors="replace")
    table = evaluation.read_text(encoding="utf-8", errors="replace")
    return Check(said.strip(), read_curves(job), table[-2000:].strip(), (killed - started, ended - killed))


def page(found: Check, model: str) -> str:
    """The page to paste, in Markdown."""
    lines = ["## GPU check", "", f"- policy {model}; {STEPS} steps of {SIZES['batch_size']} x {SIZES['group_size']}"]
    lines += [f"- {platform.platform()}, CPython {platform.python_version()}, {os.cpu_count()} CPUs"]
    lines += [f"- {', '.join(f'{name} {_version(name)}' for name in PACKAGES)}"]
    lines += [
        f"- start to the kill after step 1: {found.seconds[0]:.0f} s, taken up to the end: {found.seconds[1]:.0f} s"
    ]
    lines += [f"- {row}" for row in _cards()]
    lines += ["", "| phase (seconds) | " + " | ".join(f"step {step + 1}" for step in range(STEPS)) + " |"]
    lines += ["|---|" + "---:|" * STEPS]
    for names in (PHASES, FIGURES):
        for name, tag in names.items():
            values = dict(found.curves.get(tag, []))
            cells = [f"{values[step]:.3g}" if step in values else "n/a" for step in range(1, STEPS + 1)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "Preflight:", "```text", found.preflight, "```", "", "Evaluation of the run's folder:", "```text"]
    return "\n".join([*lines, found.evaluation, "```"])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cards() -> list[str]:
    """What nvidia-smi says of the cards, a line each."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ["no nvidia-smi: the GPUs are not told"]
    query = [tool, "--query-gpu=index,name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip().splitlines() or [f"nvidia-smi failed: {done.stderr.strip()[:200]}"]


def main() -> int:
    """Runs the check and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/gpu_check"), help="gets everything the check makes")
    parser.add_argument("--model_path", default="Qwen/Qwen2.5-0.5B-Instruct", help="the policy")
    parser.add_argument(
        "--auxiliary_model_path",
        default="",
        help="a grader for three GPUs or more; it has to answer in the grader's form. Without one, rules grade",
    )
    parser.add_argument("--eval_engine", default="auto", help="of the policy in script 3")
    parser.add_argument("--enforce_eager", action="store_true", help="engines start faster and run slower")
    parser.add_argument("--overwrite", action="store_true", help="replace a former check in the same folder")
    flags = parser.parse_args()
    folder = flags.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        if not flags.overwrite:
            raise UserError(f"--folder {folder}: holds a former check; pass --overwrite to replace it")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = check(
        folder,
        flags.model_path,
        flags.auxiliary_model_path,
        eval_engine=flags.eval_engine,
        eager=flags.enforce_eager,
    )
    text = page(found, flags.model_path)
    (folder / "page.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"\nthe page is {folder / 'page.md'}")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
