"""A real Ray cluster of one node without GPUs, on loopback, that ends with the test."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tuner.learn_to_ask.quickstart.processes import free_port

RAY = Path(sys.executable).with_name("ray")
# Ray would turn 127.0.0.1 into the machine's address and listen on all interfaces.
LOOPBACK = """
import importlib.util, sys
class AfterImport:
    def find_spec(self, name, path=None, target=None):
        if name != "ray._private.services":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.resolve_ip_for_localhost = lambda host: host
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, AfterImport())
"""


@contextmanager
def ray_head(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """Starts the cluster and gives its address.

    Args:
        folder: With a short path, which Ray's sockets need.
        env: Variables that count in addition, such as those of a token.
    """
    (folder / "sitecustomize.py").write_text(LOOPBACK)
    port = free_port()
    command = [RAY, "start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    command += [f"--temp-dir={folder / 'r'}", "--include-dashboard=false", "--disable-usage-stats"]
    command += [f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"]
    everything = {**os.environ, **env, "PYTHONPATH": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        for _ in range(3):  # on a busy machine a raylet dies waiting for its own agent
            done = subprocess.run(command, env=everything, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
        assert done.returncode == 0, done.stdout + done.stderr
        yield f"127.0.0.1:{port}"
    finally:
        mine = [process for process in psutil.process_iter() if str(folder) in _pythonpath(process)]
        for process in mine:
            process.kill()
        psutil.wait_procs(mine, timeout=20)


def _pythonpath(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("PYTHONPATH", ""))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
