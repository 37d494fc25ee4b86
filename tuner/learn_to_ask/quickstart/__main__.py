"""The whole Learn2Ask pipeline on a laptop: no GPU, no key, no download of a model.

Raw sample logs go through the three data-preparation scripts; a tiny policy is built on the spot, trained
with GRPO by main.py on a local Tinker service, and evaluated before and after.
"""

import argparse
import ast
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, run
from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.quickstart.base_policy import BasePolicyConfig, build_base_policy
from tuner.learn_to_ask.quickstart.processes import (
    child_process,
    free_port,
    require_free_port,
    run_to_end,
    wait_for_server,
)
from tuner.learn_to_ask.quickstart.reward_curve import plot_reward_curve
from tuner.learn_to_ask.report.tables import metrics_text
from tuner.learn_to_ask.report.write import FILES, write_report

RECIPE = Path(__file__).resolve().parents[1]
SAMPLE_DATA = RECIPE / "sample_data"

# The training run: 8 tasks x 8 rollouts a step. LoRA on a tiny model takes a large learning rate.
GRPO_FLAGS = (
    "--batch_size=8",
    "--group_size=8",
    "--learning_rate=1e-3",
    "--max_model_len=512",
    "--max_tokens=48",
    "--inference_engine_num=1",
    "--save_interval_steps=1000",
)
# SkyRL on two cores: what a batch of 16 costs is what it costs whether it is full or not.
ENGINE_FLAGS = (
    "--session-cleanup-interval-sec=-1",  # the tuned weights must outlive the training client
    '--backend-config={"max_lora_adapters": 2, "max_lora_rank": 16, "train_micro_batch_size": 16, '
    '"sample_max_num_sequences": 16}',
)
_STEP = re.compile(r"Trainer.*Step (\d+): (\{.*\})")


class Stages:
    """Says what runs, and how long it took."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Announces a stage and its duration."""
        self._number += 1
        print(f"[{self._number}/{self._total}] {title} ...", flush=True)
        started = time.monotonic()
        yield
        print(f"      done in {time.monotonic() - started:.0f} s", flush=True)


class RewardCurve:
    """Follows the mean reward of the training steps in the log of main.py."""

    def __init__(self, log: Path, steps: int) -> None:
        self.rewards: dict[int, float] = {}
        self._log = log
        self._steps = steps
        self._read = 0

    def follow(self) -> None:
        """Prints the steps that have come since the last call."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        complete = data.rfind(b"\n") + 1
        self._read += complete
        for line in data[:complete].decode(errors="replace").splitlines():
            match = _STEP.search(line)
            reward = ast.literal_eval(match[2]).get("critic/rewards/mean") if match else None
            if match and reward is not None:
                self.rewards[int(match[1])] = reward
                print(f"      step {match[1]} of {self._steps}: mean reward {reward:.3f}", flush=True)


def main() -> int:
    """Runs all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/quickstart"), help="gets everything the run makes")
    parser.add_argument("--steps", type=int, default=16, help="GRPO steps of 64 rollouts")
    parser.add_argument("--seed", type=int, default=0, help="of the base policy, the LoRA weights and the evaluation")
    parser.add_argument("--port", type=int, default=0, help="of the local engine; 0: any free one")
    parser.add_argument(
        "--engine_python",
        type=Path,
        default=Path(".venv-engine/bin/python"),
        help="interpreter of the engine's environment (make env-engine)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a former run in the same folder")
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, _end_like_ctrl_c)
    # Read when torch is imported: threads that wait do not spin, or a busy machine would be ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not arguments.engine_python.exists():
        raise UserError(f"--engine_python {arguments.engine_python}: no such file; make env-engine makes it")
    if arguments.port:
        require_free_port(arguments.port)
    folder = arguments.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        if not arguments.overwrite:
            raise UserError(f"--folder {folder}: holds a former run; pass --overwrite to replace it")
        shutil.rmtree(folder)
    quickstart(
        folder=folder,
        steps=arguments.steps,
        seed=arguments.seed,
        port=arguments.port or free_port(),
        engine_python=arguments.engine_python.absolute(),
    )
    return EXIT_DONE


def quickstart(*, folder: Path, steps: int, seed: int, port: int, engine_python: Path) -> None:
    """Runs the pipeline; everything it makes goes to one folder.

    One long function, because it is the pipeline, read from top to bottom.

    Args:
        folder: An empty or new folder.
        steps: GRPO steps.
        seed: Of the base policy, the LoRA weights and the evaluation.
        port: A free loopback port for the engine.
        engine_python: Interpreter with SkyRL.
    """
    started = time.monotonic()
    stages = Stages(7)
    base = folder / "base_policy"
    env = {
        **os.environ,
        "TINKER_API_KEY": "tml-local",  # the local service takes any key of this form
        "TINKER_BASE_URL": f"http://127.0.0.1:{port}",
        "TRINITY_CHECKPOINT_ROOT_DIR": str(folder / "checkpoints"),
        "LEARN2ASK_SEED": str(seed),
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        # Ray's workers inherit it, so that they find this package wherever it was started from.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(RECIPE.parents[1]), os.environ.get("PYTHONPATH")))),
    }

    def script(name: str, *flags: str, watch: Callable[[], None] | None = None, log: str) -> None:
        run_to_end([sys.executable, str(RECIPE / name), *flags], log=folder / "logs" / log, env=env, watch=watch)

    def evaluate(name: str, model_path: str) -> Path:
        evaluation = folder / "evaluation" / f"{name}.jsonl"
        script(
            "data_prepare/3_rollout_then_evaluate.py",
            "--eval_engine=tinker",
            f"--eval_model_path={model_path}",
            "--grader_engine=offline",
            f"--test_file_path={folder / 'data' / 'test.jsonl'}",
            f"--rollout_file_path={folder / 'evaluation' / f'{name}_rollouts.jsonl'}",
            f"--eval_file_path={evaluation}",
            "--max_tokens=48",
            f"--seed={seed}",
            log=f"evaluate_{name}.log",
        )
        return evaluation

    with stages.stage("data preparation: scripts 1 and 2 on the sample logs"):
        for split in ("train", "test"):
            script(
                "data_prepare/1_info_extract_pipeline.py",
                "--engine=offline",
                f"--input_file={SAMPLE_DATA / f'{split}_origin.jsonl'}",
                f"--output_file={folder / 'data_raw' / f'{split}_processed.jsonl'}",
                log=f"extract_{split}.log",
            )
            script(
                "data_prepare/2_build_dataset.py",
                f"--input_file={folder / 'data_raw' / f'{split}_processed.jsonl'}",
                f"--output_file={folder / 'data' / f'{split}.jsonl'}",
                log=f"build_{split}.log",
            )
    with stages.stage("base policy: a tiny Qwen3 imitates a doctor who stops badly (about 90 s)"):
        tasks = list(read_jsonl(folder / "data" / "train.jsonl", Task, unique_key="cid", report=ReadReport()))
        build_base_policy(base, tasks, BasePolicyConfig(), seed=seed)

    engine_log = folder / "logs" / "engine.log"
    command = engine_command(engine_python, base, port=port, folder=folder / "engine")
    engine_env = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    (folder / "engine").mkdir(parents=True)
    with child_process(command, log=engine_log, env=engine_env) as engine:
        with stages.stage(f"engine: SkyRL's Tinker service on 127.0.0.1:{port} (about 20 s)"):
            url = f"http://127.0.0.1:{port}/api/v1/get_server_capabilities"
            wait_for_server(engine, url, log=engine_log, timeout=180)
        with stages.stage("evaluation of the base policy: script 3 on the test split (about 50 s)"):
            base_evaluation = evaluate("base", str(base))
        with stages.stage(f"training: main.py, {steps} GRPO steps of 64 rollouts (about 90 s and 22 s a step)"):
            curve = RewardCurve(folder / "logs" / "train.log", steps)
            script(
                "main.py",
                f"--config={Path(__file__).with_name('config.yaml')}",
                f"--model_path={base}",
                f"--data={folder / 'data'}",
                "--grader=offline",
                f"--total_steps={steps}",
                *GRPO_FLAGS,
                watch=curve.follow,
                log="train.log",
            )
        with stages.stage("evaluation of the tuned policy: script 3 on the test split (about 30 s)"):
            tuned_evaluation = evaluate("tuned", str(folder / "checkpoints" / "Learn2Ask" / "quickstart"))

    with stages.stage("report: base against tuned"):
        plot_reward_curve(curve.rewards, folder / "reward_curve.png")
        table = report_base_against_tuned(base_evaluation, tuned_evaluation, folder)
    print(f"\n{table}\n")
    for name in FILES:
        print(f"report        {folder / name}")
    print(f"reward curve  {folder / 'reward_curve.png'}")
    print(f"logs          {folder / 'logs'}")
    print(f"finished in {(time.monotonic() - started) / 60:.1f} minutes")


def engine_command(
    engine_python: Path, base_policy: Path, *, port: int, folder: Path, flags: Sequence[str] = ENGINE_FLAGS
) -> list[str]:
    """What starts the local Tinker service.

    Args:
        engine_python: Interpreter with SkyRL.
        base_policy: The one model it offers.
        port: Of 127.0.0.1.
        folder: An existing one, for its database and checkpoints.
        flags: Of SkyRL.
    """
    return [
        str(engine_python),
        str(Path(__file__).with_name("engine_server.py")),
        f"--base-model={base_policy}",
        f"--port={port}",
        f"--database-url=sqlite:///{folder / 'engine.db'}",
        f"--checkpoints-base={folder / 'checkpoints'}",
        *flags,
    ]


def report_base_against_tuned(base_evaluation: Path, tuned_evaluation: Path, folder: Path) -> str:
    """Writes the report into the folder and returns its table of metrics."""
    report = write_report([base_evaluation, tuned_evaluation], names=["base", "tuned"], output_dir=folder)
    return metrics_text(report)


def _end_like_ctrl_c(number: int, frame: FrameType | None) -> None:
    """Has SIGTERM clean up as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    run(main)
