"""The quickstart's pipeline, read from top to bottom: data preparation, policy, training, evaluation, report."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.records import Sample, Task
from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.jsonl import ReadReport, RecordT, read_jsonl, write_jsonl
from tuner.learn_to_ask.quickstart.base_policy import BasePolicyConfig, build_base_policy
from tuner.learn_to_ask.quickstart.policies import SMOLLM2, PolicyNumbers
from tuner.learn_to_ask.quickstart.processes import child_process, run_to_end, wait_for_server
from tuner.learn_to_ask.quickstart.reward_curve import plot_reward_curve
from tuner.learn_to_ask.quickstart.smollm2 import make_smollm2
from tuner.learn_to_ask.quickstart.stages import RewardCurve, Stages
from tuner.learn_to_ask.quickstart.warm_start import warm_start
from tuner.learn_to_ask.report.interviews.tables import interviews_text
from tuner.learn_to_ask.report.interviews.write import INTERVIEW_FILES, prepare_interview_report
from tuner.learn_to_ask.report.tables import metrics_text
from tuner.learn_to_ask.report.write import FILES, write_report
from tuner.learn_to_ask.sample_data.generate import write_sample_logs
from tuner.learn_to_ask.training.resume import forget_sampler_weights

RECIPE = Path(__file__).resolve().parents[1]
PRETRAINED = RECIPE.parents[1] / "runs" / "smollm2" / "model"  # converted once for all runs of this checkout


def quickstart(
    *,
    folder: Path,
    policy: str,
    domain_name: str,
    numbers: PolicyNumbers,
    steps: int,
    seed: int,
    port: int,
    engine_python: Path,
) -> None:
    """Runs the pipeline; everything it makes goes to one folder, and what is there already is kept.

    One long function, because it is the pipeline, read from top to bottom.

    Args:
        folder: A new one, or that of an unfinished run with the same arguments.
        policy: `toy`, `smollm2`, or a model's folder or hub id.
        domain_name: A file or one that comes with the package, with a vocabulary that the sample logs are made of.
        numbers: Of the policy.
        steps: GRPO steps.
        seed: Of the base policy, the LoRA weights and the evaluation.
        port: A free loopback port for the engine.
        engine_python: Interpreter with SkyRL.
    """
    started = time.monotonic()
    stages = Stages(7)
    domain = load_domain(domain_name)
    base, data, evaluation = folder / "base_policy", folder / "data", folder / "evaluation"
    env = {
        **os.environ,
        "TINKER_API_KEY": "tml-local",  # the local service takes any key of this form
        "TINKER_BASE_URL": f"http://127.0.0.1:{port}",
        "TRINITY_CHECKPOINT_ROOT_DIR": str(folder / "checkpoints"),
        "LEARN2ASK_SEED": str(seed),
        "LEARN2ASK_ROLLOUT_SECONDS": str(numbers.rollout_seconds),
        "LEARN2ASK_RUNNERS": str(numbers.runners),
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        # Ray's workers inherit it, so that they find this package wherever it was started from.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(RECIPE.parents[1]), os.environ.get("PYTHONPATH")))),
    }

    def script(name: str, *flags: str, watch: Callable[[], None] | None = None, log: str) -> None:
        run_to_end([sys.executable, str(RECIPE / name), *flags], log=folder / "logs" / log, env=env, watch=watch)

    def evaluate(name: str, model_path: str) -> None:
        script(
            "data_prepare/3_rollout_then_evaluate.py",
            "--eval_engine=tinker",
            f"--domain={domain_name}",
            f"--eval_model_path={model_path}",
            "--grader_engine=offline",
            f"--test_file_path={evaluation / 'test.jsonl'}",
            f"--rollout_file_path={evaluation / f'{name}_rollouts.jsonl'}",
            f"--eval_file_path={evaluation / f'{name}.jsonl'}",
            f"--interviews={evaluation / 'interview_samples.jsonl'}",
            f"--max_turns={numbers.interview_turns}",
            "--sampling=trained",
            f"--max_tokens={numbers.max_tokens}",
            f"--seed={seed}",
            "--resume",
            log=f"evaluate_{name}.log",
        )

    with stages.stage("data preparation: scripts 1 and 2 on the sample logs"):
        write_sample_logs(domain, folder / "data_raw")
        for split in ("train", "test"):
            script(
                "data_prepare/1_info_extract_pipeline.py",
                "--engine=offline",
                f"--domain={domain_name}",
                f"--input_file={folder / 'data_raw' / f'{split}_origin.jsonl'}",
                f"--output_file={folder / 'data_raw' / f'{split}_processed.jsonl'}",
                "--resume",
                log=f"extract_{split}.log",
            )
            script(
                "data_prepare/2_build_dataset.py",
                f"--domain={domain_name}",
                f"--input_file={folder / 'data_raw' / f'{split}_processed.jsonl'}",
                f"--output_file={data / f'{split}.jsonl'}",
                "--overwrite",
                log=f"build_{split}.log",
            )
        tasks, test = (read_records(data / f"{split}.jsonl", Task) for split in ("train", "test"))
        evaluated = of_first_sessions(test, numbers.evaluated_sessions)
        write_jsonl(evaluation / "test.jsonl", evaluated)
        samples = read_records(folder / "data_raw" / "test_processed.jsonl", Sample)
        sessions = {task.session_id for task in evaluated}
        write_jsonl(
            evaluation / "interview_samples.jsonl", [sample for sample in samples if sample.session_id in sessions]
        )
    with stages.stage(f"base policy: {numbers.base_title} ({numbers.base_time})"):
        if not base.exists():
            make_base_policy(base, tasks, domain, policy, numbers, seed=seed)

    engine_log = folder / "logs" / "engine.log"
    (folder / "engine").mkdir(parents=True, exist_ok=True)
    command = engine_command(engine_python, base, port=port, folder=folder / "engine", flags=numbers.engine_flags())
    engine_env = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    engine_env["JAX_COMPILATION_CACHE_DIR"] = str(compilation_cache())
    with child_process(command, log=engine_log, env=engine_env) as engine:
        with stages.stage(f"engine: SkyRL's Tinker service on 127.0.0.1:{port} (about 20 s)"):
            url = f"http://127.0.0.1:{port}/api/v1/get_server_capabilities"
            wait_for_server(engine, url, log=engine_log, timeout=180)
        with stages.stage(f"evaluation of the base policy: script 3, turns and interviews ({numbers.evaluation_time})"):
            evaluate("base", str(base))
        rollouts = numbers.tasks * numbers.group_size
        job = folder / "checkpoints" / "Learn2Ask" / "quickstart"
        forget_sampler_weights(job)  # what a former engine had made ready is not loaded in this one
        with stages.stage(f"training: main.py, {steps} GRPO steps of {rollouts} rollouts ({numbers.training_time})"):
            curve = RewardCurve(folder / "logs" / "train.log", steps)
            script(
                "main.py",
                f"--config={Path(__file__).with_name('config.yaml')}",
                f"--model_path={base}",
                f"--data={data}",
                f"--domain={domain_name}",
                "--grader=offline",
                *numbers.grpo_flags(steps),
                watch=curve.follow,
                log="train.log",
            )
        with stages.stage(f"evaluation of the tuned policy: script 3, turns and interviews ({numbers.tuned_time})"):
            evaluate("tuned", str(job))

    with stages.stage("report: base against tuned"):
        plot_reward_curve(curve.rewards, folder / "reward_curve.png")
        text = report_base_against_tuned(evaluation, folder)
    print(f"\n{text}\n")
    for name in (*FILES, *INTERVIEW_FILES):
        print(f"report        {folder / name}")
    print(f"reward curve  {folder / 'reward_curve.png'}")
    print(f"logs          {folder / 'logs'}")
    print(f"finished in {(time.monotonic() - started) / 60:.1f} minutes")


def compilation_cache() -> Path:
    """Where the engine keeps what it has compiled, from one run to the next."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "learn2ask" / "jax"


def read_records(file: Path, record_type: type[RecordT]) -> list[RecordT]:
    """The samples or tasks that script 1 or 2 made."""
    return list(read_jsonl(file, record_type, unique_key="cid", report=ReadReport()))


def of_first_sessions(tasks: Sequence[Task], sessions: int | None) -> list[Task]:
    """The tasks of the first sessions; a metric's interval is over sessions, so these stay whole.

    Args:
        tasks: Session after session.
        sessions: How many, `None` for all.
    """
    kept = set(list(dict.fromkeys(task.session_id for task in tasks))[:sessions])
    return [task for task in tasks if task.session_id in kept]


def make_base_policy(
    folder: Path, tasks: Sequence[Task], domain: Domain, policy: str, numbers: PolicyNumbers, *, seed: int
) -> None:
    """Builds the tiny policy, or warms a pretrained one up.

    Args:
        folder: Where to.
        tasks: The train split.
        domain: Theirs.
        policy: As for `quickstart`.
        numbers: Of the policy.
        seed: Of everything random.

    Raises:
        UserError: When the model cannot be had.
    """
    if isinstance(numbers.base, BasePolicyConfig):
        build_base_policy(folder, tasks, domain, numbers.base, seed=seed)
        return
    source = policy
    if policy == SMOLLM2:
        source = str(PRETRAINED)
        make_smollm2(PRETRAINED)
    warm_start(folder, tasks, domain, source, numbers.base, seed=seed)


def engine_command(
    engine_python: Path, base_policy: Path, *, port: int, folder: Path, flags: Sequence[str]
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


def report_base_against_tuned(evaluation: Path, folder: Path) -> str:
    """Writes the reports on single turns and on whole interviews, and returns their tables of metrics.

    Args:
        evaluation: Holds the evaluations and the interviews of both policies.
        folder: Gets the reports.
    """
    names = ["base", "tuned"]
    interviews = prepare_interview_report(
        [evaluation / f"{name}_interviews.jsonl" for name in names], names=names, output_dir=folder, overwrite=True
    )
    turns = write_report(
        [evaluation / f"{name}.jsonl" for name in names],
        names=names,
        output_dir=folder,
        interviews=interviews.report,
        overwrite=True,  # a run that was taken up may have written them before
    )
    interviews.write()
    return f"{metrics_text(turns)}\n\n{interviews_text(interviews.report)}"
