"""A Ray cluster on this machine whose GPUs do not exist, and main.py on it."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tuner.learn_to_ask.quickstart.processes import end_when, free_port
from tuner.learn_to_ask.training.resume import last_checkpoint

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECIPE = ROOT / "tuner" / "learn_to_ask"
ENVIRONMENT = Path(sys.prefix)
BIN = Path(sys.executable).parent
RAY_TRIES = 3  # on a busy machine a raylet dies waiting for its own agent


def base_environment(folder: Path) -> dict[str, str]:
    """The variables of every process, `ray start` included.

    Args:
        folder: Gets checkpoints and caches.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TINKER_", "VLLM_"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join(map(str, (HERE / "stand_ins", ENVIRONMENT / "shims", ROOT, HERE))),
        "LD_LIBRARY_PATH": str(ENVIRONMENT / "stubs"),  # hollow NVIDIA libraries that torch wants to be there
        "TRINITY_CHECKPOINT_ROOT_DIR": str(folder / "checkpoints"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # ten and more processes on two cores: one thread each, and no spinning
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default is a share of the machine for each engine
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CACHE_ROOT": str(folder / "vllm"),
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # loopback only
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        address: Of its head.
        env: For everything that is to run on it.
        folder: Of logs.
        nodes: The process of every node's `ray start`.
    """

    address: str
    env: dict[str, str]
    folder: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)


@contextmanager
def fake_gpus(folder: Path, *nodes: int) -> Iterator[Cluster]:
    """Starts a cluster that wants a token, and ends it with everything that runs on it.

    Args:
        folder: For logs and checkpoints; Ray's own has a short name, as its sockets need.
        nodes: GPUs of each node.
    """
    token = folder / "ray_token"
    token.write_text(secrets.token_hex(32))
    env = base_environment(folder) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with ended_with_all_children():
        head = None
        for _ in range(RAY_TRIES):
            port = free_port()
            address = f"127.0.0.1:{port}"
            env["RAY_ADDRESS"] = address
            head = _start_node(folder, env, nodes[0], "--head", f"--port={port}")
            if head.returncode == 0:
                break
        assert head is not None
        assert head.returncode == 0, (folder / "ray.log").read_text()
        for gpus in nodes[1:]:
            joined = _start_node(folder, env, gpus, f"--address={address}")
            assert joined.returncode == 0, (folder / "ray.log").read_text()
        yield Cluster(address, env, folder)


def _start_node(folder: Path, env: dict[str, str], gpus: int, *flags: str) -> subprocess.CompletedProcess[bytes]:
    """Runs `ray start` once."""
    command = [BIN / "ray", "start", *flags, "--num-cpus=16", f"--num-gpus={gpus}", "--node-ip-address=127.0.0.1"]
    command += [f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"]
    if "--head" in flags:
        command += [f"--temp-dir={tempfile.mkdtemp(prefix='ray')}", "--include-dashboard=false"]
        command += [f"--ray-client-server-port={free_port()}"]
    with (folder / "ray.log").open("ab") as log:
        return subprocess.run(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False)


@contextmanager
def ended_with_all_children() -> Iterator[None]:
    """Ends whatever was started inside, daemons included: `ray start` leaves its processes to init."""
    before = set(psutil.pids())
    try:
        yield
    finally:
        mine = [process for process in psutil.process_iter() if process.pid not in before and _is_ours(process)]
        for process in mine:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(mine, timeout=20)


def _is_ours(process: psutil.Process) -> bool:
    """Whether a process belongs to this environment: it carries its stand-ins on PYTHONPATH."""
    try:
        return str(HERE / "stand_ins") in process.environ().get("PYTHONPATH", "")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def command(models: Path, config: Path, *flags: str) -> list[str]:
    """`main.py` with the default flags but for sizes, which a test may override."""
    sizes = {
        "model_path": models / "policy",
        "auxiliary_model_path": models / "grader",
        "data": models / "data",
        "max_model_len": 1024,
        "max_tokens": 64,
        "batch_size": 4,
        "group_size": 4,
        "learning_rate": 1e-3,
        "save_interval_steps": 1,
    }
    given = {flag.split("=")[0].lstrip("-") for flag in flags}
    defaults = [f"--{name}={value}" for name, value in sizes.items() if name not in given]
    return [sys.executable, str(RECIPE / "main.py"), f"--config={config}", *defaults, *flags]


def run_main(arguments: list[str], *, env: dict[str, str], log: Path, timeout: float = 900) -> int:
    """Runs main.py to its end and returns its exit code; a hang is a failure."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments, env=env, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            return process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"no end within {timeout:g} s:\n{tail(log)}") from None


def end_after_checkpoint(
    arguments: list[str], job: Path, step: int, *, env: dict[str, str], log: Path, how: signal.Signals = signal.SIGKILL
) -> int:
    """Starts main.py, sends it a signal once a checkpoint is whole, and returns its exit code."""
    return end_when(lambda: last_checkpoint(job) >= step, arguments, log=log, env=env, how=how)


def tail(log: Path, lines: int = 60) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
