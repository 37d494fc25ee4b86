"""`make gpu-check` on faked GPUs: the whole of it, up to the page that is made to be pasted."""

import subprocess
import sys

import pytest
from fake_gpus import ROOT, fake_gpus


@pytest.mark.long
def test_one_page_tells_of_a_run_that_was_killed_and_evaluated(models, tmp_path):
    folder = tmp_path / "check"
    command = [sys.executable, "-m", "tuner.learn_to_ask.quickstart.gpu_check", f"--folder={folder}"]
    command += [f"--model_path={models / 'policy'}", "--eval_engine=transformers", "--enforce_eager"]
    with fake_gpus(tmp_path, 2) as cluster:
        done = subprocess.run(
            command, env=cluster.env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500
        )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    page = (folder / "page.md").read_text()
    assert page.strip() in done.stdout
    for said in ("## GPU check", "2 are dealt out:", "| update |", "| mean reward |", "Total reward", "vllm 0.19"):
        assert said in page, f"{said!r} is missing:\n{page}"
    assert "n/a | n/a" not in page, page
