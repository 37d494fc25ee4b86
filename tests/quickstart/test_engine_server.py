"""What `engine_server.py` changes in SkyRL, checked in the engine's own environment."""

import subprocess
from pathlib import Path

import pytest
from training_run import ENGINE_PYTHON

CHECKS = Path(__file__).with_name("engine_checks.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        "equal_prompts_are_read_once_and_answered_as_before",
        "batches_wait_while_requests_come",
        "a_result_ends_the_pause_of_who_waits_for_it",
        "a_restarted_service_forgets_what_its_former_clients_wanted",
    ],
)
def test_the_engine(check):
    done = subprocess.run([ENGINE_PYTHON, CHECKS, check], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
