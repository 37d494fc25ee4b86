"""What every command line shares."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.learn_to_ask.cli import EXIT_UNREAD

ROOT = Path(__file__).parents[1]
PRINTS = "from tuner.learn_to_ask.cli import run\nrun(lambda: print('a line', flush={flush}) or 0)"


@pytest.mark.parametrize("flush", [True, False])
def test_an_output_that_nobody_reads_ends_the_command_without_a_traceback(flush):
    """Given a pipe whose reader has gone, as after `| head -1`, when a command prints, then it ends in silence."""
    reads, writes = os.pipe()
    os.close(reads)

    done = subprocess.run(
        [sys.executable, "-c", PRINTS.format(flush=flush)],
        cwd=ROOT,
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )

    os.close(writes)
    assert (done.returncode, done.stderr) == (EXIT_UNREAD, "")
