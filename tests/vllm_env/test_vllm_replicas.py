"""Replicas of a real vLLM on a Ray cluster of two fake nodes, through script 1."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm.entrypoints.llm")  # `vllm` alone could be this folder

from fake_cluster import fake_cluster

REPOSITORY = Path(__file__).resolve().parents[2]
EXTRACT = REPOSITORY / "tuner" / "learn_to_ask" / "data_prepare" / "1_info_extract_pipeline.py"
SAMPLE_LOGS = REPOSITORY / "tuner" / "learn_to_ask" / "sample_data" / "train_origin.jsonl"


@pytest.fixture(scope="module")
def address(vllm_environment):
    with fake_cluster(1, 1) as cluster:
        yield cluster.address


def extract(folder: Path, model: Path, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Script 1 on the first sessions of the sample logs, greedily; a random model extracts nothing readable."""
    (folder / "in.jsonl").write_text("".join(SAMPLE_LOGS.read_text().splitlines(keepends=True)[:12]))
    command = [sys.executable, str(EXTRACT), "--input_file", "in.jsonl", "--output_file", name, "--model_path", str(model)]
    command += ["--engine", "vllm", "--dtype", "float32", "--temperature", "0", "--max_tokens", "12", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)


def test_try(model, address, tmp_path):
    one = extract(tmp_path, model, "one.jsonl")
    print(one.stdout, one.stderr)
    two = extract(tmp_path, model, "two.jsonl", "--replicas", "2", "--ray_address", address)
    print(two.stdout, two.stderr)
    assert 0
