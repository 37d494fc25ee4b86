"""Whole runs with replicas on a cluster of their own: ended from outside, left by all replicas, taken up again."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fake_cluster import VARIABLES

pytestmark = pytest.mark.slow

HELPERS = Path(__file__).parents[1] / "helpers"
COUNT = 400
SECRET = "sk-not-to-be-seen-anywhere"


@pytest.fixture
def environment(monkeypatch):
    """Two GPUs that do not exist, and a key that nobody should write down."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with tempfile.TemporaryDirectory(prefix="l2a") as folder:  # short, for Ray's sockets
        yield {
            **os.environ,
            **VARIABLES,
            "RAY_OVERRIDE_RESOURCES": '{"GPU": 2}',
            "RAY_TMPDIR": folder,
            "PYTHONPATH": os.pathsep.join(map(str, (HELPERS, HELPERS.parents[1]))),
            "OPENAI_API_KEY": SECRET,
        }


def start(folder: Path, environment: dict[str, str], *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(HELPERS / "replica_run.py"), str(folder / "out.jsonl"), str(folder), str(COUNT), ""]
    return subprocess.Popen(
        [*command, *flags], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until_answered(folder: Path, process: subprocess.Popen[str], number: int) -> None:
    journal = folder / "out.jsonl.journal"
    end = time.monotonic() + 200
    while not journal.exists() or len(journal.read_bytes().splitlines()) <= number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)


def processes_of(environment: dict[str, str]) -> list[psutil.Process]:
    """What runs with the temporary folder of this test."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAY_TMPDIR") == environment["RAY_TMPDIR"]:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def asked(folder: Path) -> Counter[int]:
    return Counter(int(line) for log in folder.glob("*.log") for line in log.read_text().splitlines()[1:])


def finished_keys(folder: Path) -> list[int]:
    return [json.loads(line)["key"] for line in (folder / "out.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_ended_leaves_no_process_and_is_taken_up_where_it_was(sent, code, tmp_path, environment):
    process = start(tmp_path, environment)
    wait_until_answered(tmp_path, process, 50)

    process.send_signal(sent)
    process.communicate(timeout=60)

    assert process.returncode == code
    _, left = psutil.wait_procs(processes_of(environment), timeout=20)
    assert [process.cmdline()[:3] for process in left] == []
    answered = len((tmp_path / "out.jsonl.journal").read_bytes().splitlines()) - 1

    for log in tmp_path.glob("*.log"):
        log.unlink()
    again = start(tmp_path, environment, "--resume")
    told, errors = again.communicate(timeout=200)

    assert again.returncode == 0, errors
    assert finished_keys(tmp_path) == list(range(COUNT))  # in the order of the input
    assert asked(tmp_path).total() == COUNT - answered
    assert "resumed" in told
    assert "replica 1 on" in told
    # the key was in every process, and is in no log
    logs = [file for file in Path(environment["RAY_TMPDIR"]).rglob("*") if file.is_file() and "logs" in file.parts]
    assert logs
    assert [file for file in logs if SECRET in file.read_text(errors="replace")] == []


def test_when_every_replica_dies_the_run_ends_with_its_results_kept(tmp_path, environment):
    process = start(tmp_path, environment)
    wait_until_answered(tmp_path, process, 50)

    # Replacements as well, until none is started any more: one that has not answered is not replaced.
    killed: set[int] = set()
    while process.poll() is None:
        for log in tmp_path.glob("*.log"):
            pid = int(log.read_text().splitlines()[0])
            if pid not in killed:
                killed.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    _, errors = process.communicate()

    assert process.returncode == 2, errors
    (said,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "no replica is left" in said
    assert "--resume" in said
    again = start(tmp_path, environment, "--resume")
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert finished_keys(tmp_path) == list(range(COUNT))
