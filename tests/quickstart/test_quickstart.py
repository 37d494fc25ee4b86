"""The quickstart's parts: its processes end in every case, its report says what the evaluations hold."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from evaluations import ASKED, RIGHT_STOP, record, write
from interviews import QUESTIONS, STOP, interview

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.quickstart.pipeline import report_base_against_tuned
from tuner.learn_to_ask.quickstart.processes import (
    child_process,
    free_port,
    require_free_port,
    run_to_end,
    wait_for_server,
)
from tuner.learn_to_ask.quickstart.reward_curve import plot_reward_curve
from tuner.learn_to_ask.quickstart.stages import RewardCurve
from tuner.learn_to_ask.report.interviews.write import INTERVIEW_FILES
from tuner.learn_to_ask.report.write import FILES

ROOT = Path(__file__).parents[2]
ENV = dict(os.environ)
# Starts a grandchild, prints both process ids, then waits for ever.
PARENT = (
    "import os, subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "print(os.getpid(), child.pid, flush=True); time.sleep(600)"
)


def wait_until(condition, *, timeout=30.0):
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.02)
    return value


def family_of(log):
    return [int(pid) for pid in wait_until(lambda: log.read_text().split())]


def test_a_child_and_its_children_end_with_the_block(tmp_path):
    with child_process([sys.executable, "-c", PARENT], log=tmp_path / "log", env=ENV):
        family = family_of(tmp_path / "log")
        assert all(psutil.pid_exists(pid) for pid in family)

    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in family))


def test_a_child_ends_when_the_block_fails(tmp_path):
    with (
        pytest.raises(RuntimeError),
        child_process([sys.executable, "-c", PARENT], log=tmp_path / "log", env=ENV) as process,
    ):
        raise RuntimeError

    assert process.poll() is not None


def test_a_child_that_ignores_sigterm_is_killed(tmp_path):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(600)"
    )

    with child_process([sys.executable, "-c", stubborn], log=tmp_path / "log", env=ENV) as process:
        wait_until((tmp_path / "log").read_text)

    assert process.returncode == -signal.SIGKILL


def test_a_failing_command_shows_the_end_of_its_log(tmp_path, capfd):
    code = "print('first'); print('what went wrong'); raise SystemExit(3)"

    with pytest.raises(UserError, match=r"exited with 3; its log is .*log"):
        run_to_end([sys.executable, "-c", code], log=tmp_path / "log", env=ENV)

    assert "what went wrong" in capfd.readouterr().err


def test_a_server_that_ends_before_it_answers_is_reported_with_its_log(tmp_path, capfd):
    log = tmp_path / "log"
    code = "print('no such model'); raise SystemExit(1)"

    with (
        child_process([sys.executable, "-c", code], log=log, env=ENV) as process,
        pytest.raises(UserError, match="ended with 1"),
    ):
        wait_for_server(process, f"http://127.0.0.1:{free_port()}", log=log, timeout=30)

    assert "no such model" in capfd.readouterr().err


def test_a_port_in_use_is_one_clear_line():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        with pytest.raises(UserError, match=rf"--port {port}: in use"):
            require_free_port(port)


def test_the_reward_curve_follows_the_trainers_steps_alone(tmp_path, capsys):
    log = tmp_path / "train.log"
    log.write_text(
        "(Explorer pid=1) INFO [monitor.py:157] Step 1: {'rollout/reward/mean': 9.0}\n"
        "(Trainer pid=2) INFO [monitor.py:157] Step 1: {'critic/rewards/mean': 1.5, 'x': nan}\n".replace("nan", "0.0")
        + "(Trainer pid=2) INFO [monitor.py:157] Step 2: {'critic/rewa"
    )
    curve = RewardCurve(log, steps=2)

    curve.follow()
    with log.open("a") as file:
        file.write("rds/mean': 2.5}\n")
    curve.follow()

    assert curve.rewards == {1: 1.5, 2: 2.5}
    assert capsys.readouterr().out.splitlines() == [
        "      step 1 of 2: mean reward 1.500",
        "      step 2 of 2: mean reward 2.500",
    ]


def test_the_reports_set_base_against_tuned_in_the_folder_of_the_run(tmp_path):
    # Given: where stopping is right, the base never stops and the tuned policy always does; in whole interviews
    # the base asks for one of three facts for ever, and the tuned policy for all of them, then stops.
    for name, rollout, said in (("base", ASKED, QUESTIONS[:1] * 6), ("tuned", RIGHT_STOP, [*QUESTIONS, STOP])):
        write(tmp_path / f"{name}.jsonl", [record(f"{number}_0", "stop", rollout) for number in range(40)])
        interviews = [interview(*said, session_id=str(number)) for number in range(40)]
        lines = "".join(f"{one.model_dump_json()}\n" for one in interviews)
        (tmp_path / f"{name}_interviews.jsonl").write_text(lines)

    tables = report_base_against_tuned(tmp_path, tmp_path)

    assert cells(tables, "Total reward") == [
        "0.000 [0.000, 0.000]",
        "4.000 [4.000, 4.000]",
        "+4.000 [+4.000, +4.000]",
        "better",
    ]
    base, tuned, logged, change, verdict = cells(tables, "coverage at stop")
    assert (base, tuned) == ("0.333 [0.333, 0.333]", "1.000 [1.000, 1.000]")
    assert logged.startswith("0.")
    assert (change, verdict) == ("+0.667 [+0.667, +0.667]", "better")
    assert cells(tables, "turns")[:2] == ["6.000 [6.000, 6.000]", "3.000 [3.000, 3.000]"]
    # Columns are in line: what is right-aligned ends where its heading does.
    [row] = [line for line in tables.splitlines() if line.startswith("Total reward")]
    heading = tables.splitlines()[0]
    assert heading.index("tuned") + len("tuned") == row.index("4.000 [") + len("4.000 [4.000, 4.000]")
    assert all((tmp_path / name).exists() for name in (*FILES, *INTERVIEW_FILES))
    # A run that is taken up after its end writes them again.
    assert report_base_against_tuned(tmp_path, tmp_path) == tables


def cells(tables, title):
    """What stands in the row of a metric."""
    [row] = [line for line in tables.splitlines() if line.startswith(f"{title}  ")]
    return [cell.strip() for cell in row.removeprefix(title).split("  ") if cell.strip()]


def test_the_reward_curve_is_drawn(tmp_path):
    plot_reward_curve({1: 1.5, 2: 2.5}, tmp_path / "reward_curve.png")

    assert (tmp_path / "reward_curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--engine_python", "nowhere/python"], "make env-engine"),
        (["--engine_python", sys.executable, "--folder", str(ROOT / "tests")], "--overwrite"),
    ],
)
def test_unusable_flags_are_one_line_and_exit_code_2(flags, said):
    done = subprocess.run(
        [sys.executable, "-m", "tuner.learn_to_ask.quickstart", *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )

    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
