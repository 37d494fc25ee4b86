"""Who gets which GPUs, and what is refused before anything is loaded."""

import socket
import subprocess
import sys

import pytest
from run_scripts import EXTRACT, PACKAGE, SESSION, TASK, error_of, evaluate, extract, run, write

from tuner.learn_to_ask.engines.replicas.nodes import lacking
from tuner.learn_to_ask.engines.replicas.plan import Node, plan_replicas
from tuner.learn_to_ask.engines.tensor_parallel import Heads
from tuner.learn_to_ask.errors import UserError

QWEN_7B = Heads(28, 4)  # 1, 2 or 4 GPUs
QWEN_32B = Heads(40, 8)  # 1, 2, 4 or 8


def nodes(*gpus, free=None):
    return [
        Node(id=f"{index}", name=f"10.0.0.{index}", gpus=count, free=count if free is None else free[index])
        for index, count in enumerate(gpus)
    ]


def plan(given, *, wanted=None, size=None, heads=QWEN_32B):
    return plan_replicas(given, wanted=wanted, tensor_parallel_size=size, fitting=heads.fitting_gpus, flag="--replicas")


@pytest.mark.parametrize(
    ("gpus", "wanted", "size", "heads", "expected_size", "expected"),
    [
        ((8, 8), None, None, QWEN_32B, 8, (1, 1)),
        ((8, 8), None, None, QWEN_7B, 4, (2, 2)),  # its heads go no further
        ((8, 8), None, 1, QWEN_7B, 1, (8, 8)),
        ((8, 4), None, None, QWEN_32B, 4, (2, 1)),  # the smaller node is used as well
        ((0, 8), None, None, QWEN_32B, 8, (1,)),  # a head without GPUs
        ((8, 8), 4, None, QWEN_32B, 4, (2, 2)),  # as many GPUs as leave room for four
        ((8, 8), 3, None, QWEN_32B, 4, (2, 1)),
        ((8, 8), 3, 2, QWEN_32B, 2, (2, 1)),  # spread over the nodes
        ((3, 3), None, None, QWEN_7B, 2, (1, 1)),
        ((1, 1), 2, None, QWEN_7B, 1, (1, 1)),
    ],
)
def test_gpus_are_dealt_out_by_what_the_heads_allow(gpus, wanted, size, heads, expected_size, expected):
    found = plan(nodes(*gpus), wanted=wanted, size=size, heads=heads)

    assert (found.tensor_parallel_size, found.replicas) == (expected_size, expected)


def test_gpus_that_others_hold_are_left_to_them():
    assert plan(nodes(8, 8, free=(8, 2)), size=2).replicas == (4, 1)


def test_the_table_says_what_each_node_gets():
    assert plan(nodes(8, 8, free=(8, 4)), size=4).table().splitlines() == [
        "10.0.0.0    8  of 8: 2 replicas x 4 GPUs",
        "10.0.0.1    4  of 8: 1 replica x 4 GPUs",
        "present    16",
    ]


@pytest.mark.parametrize(
    ("given", "wanted", "size", "message"),
    [
        (nodes(0), None, None, r"--replicas: the cluster has no GPU; start Ray on a machine with some"),
        (nodes(4, free=(0,)), None, None, r"--replicas: none of the cluster's 4 GPUs is free \(10.0.0.0: 0 of 4\)"),
        (nodes(4, 4), 9, None, r"--replicas 9: 9 replicas x 1 GPUs are more than are free .*4 of 4.*8 would fit"),
        (nodes(4, 4), 3, 4, r"--replicas 3: 3 replicas x 4 GPUs are more than are free .*2 would fit"),
        (nodes(4, 4), None, 8, r"a replica of 8 GPUs lies in one node, and the most that one has free is 4"),
    ],
)
def test_more_than_there_is_is_refused_with_what_would_fit(given, wanted, size, message):
    with pytest.raises(UserError, match=message) as caught:
        plan(given, wanted=wanted, size=size)
    assert "\n" not in str(caught.value)


def test_a_node_that_joins_is_compared_with_the_others(tmp_path):
    here = {"python": "3.11.7", "vllm": "0.19.0", "learn2ask": "abc"}

    assert lacking(here, here, [str(tmp_path)]) == ""
    assert lacking(here | {"vllm": ""}, here, []) == "has vllm missing where others have 0.19.0"
    assert lacking(here, here, [str(tmp_path / "model")]) == f"does not see {tmp_path / 'model'}"


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5", ""])
def test_a_number_of_replicas_is_auto_or_from_1(given, tmp_path):
    result = extract(tmp_path, "--replicas", given)

    assert result.returncode == 2
    assert f"argument --replicas: {given or ''}" in result.stderr
    assert "is neither auto nor a whole number from 1" in result.stderr


def test_only_the_vllm_engine_has_replicas(tmp_path):
    write(tmp_path / "in.jsonl", SESSION)
    assert error_of(extract(tmp_path, "--replicas", "2")) == (
        "--replicas: the offline engine has none; leave it out, or choose --engine vllm"
    )
    write(tmp_path / "in.jsonl", TASK)
    assert error_of(evaluate(tmp_path, "--eval_replicas", "auto")).startswith(
        "--eval_replicas: the openai engine has none"
    )
    assert error_of(evaluate(tmp_path, "--eval_engine", "auto", "--eval_replicas", "2")).startswith(
        "--eval_replicas: a server, --eval_base_url, has none"
    )


def test_a_cluster_that_cannot_be_reached_is_told_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
    write(tmp_path / "in.jsonl", SESSION)
    files = ("--input_file", "in.jsonl", "--output_file", "out.jsonl", "--model_path", "some/model", "--replicas", "2")

    found = run(tmp_path, EXTRACT, *files, "--ray_address", address)
    without_port = run(tmp_path, EXTRACT, *files, "--ray_address", "head-node")

    assert found.returncode == without_port.returncode == 2
    assert f"error: --ray_address {address}: no cluster answers" in found.stderr
    assert "error: --ray_address head-node: an address of the form host:port is expected" in without_port.stderr


def test_a_model_of_the_users_leaves_gpus_for_the_policy(tmp_path):
    interview = PACKAGE / "evaluation" / "interview.py"
    files = ("--test_file_path", "in.jsonl", "--output_file", "out.jsonl", "--eval_model_path", "a/policy")
    user = ("--user", "llm", "--user_model_path", "a/user", "--user_replicas", "auto")

    assert error_of(run(tmp_path, interview, *files, *user, "--eval_replicas", "2")) == (
        "--user_replicas auto: would leave no GPU for --eval_replicas; name a number"
    )


def test_without_replicas_ray_is_not_imported():
    program = "import sys, tuner.learn_to_ask.engines.select; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
