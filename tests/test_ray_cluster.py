"""Which Ray cluster a run takes, what it hears from it, and what it ends on it."""

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ray_head import ray_head

from tuner.learn_to_ask import ray_cluster
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.ray_cluster import ClusterAddress, cluster_address, end_stale_actors, probe_cluster
from tuner.learn_to_ask.training.preflight.cluster import check_ray

RECORD = "ray._private.utils.read_ray_address"


@pytest.fixture
def listener():
    """A port on which something listens that is no Ray."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed():
    """A port on which nothing listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(RECORD, lambda: None)


def test_the_config_comes_before_the_environment_and_both_before_what_runs_here(monkeypatch, listener):
    monkeypatch.setattr(RECORD, lambda: listener)
    here = cluster_address(None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")

    assert here == ClusterAddress(listener, "`ray start` on this machine")
    assert cluster_address(None) == cluster_address("auto") == ClusterAddress("10.0.0.2:6379", "RAY_ADDRESS")
    assert cluster_address("10.0.0.1:6379") == ClusterAddress("10.0.0.1:6379", "cluster.ray_address")


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_cluster_the_run_starts_its_own(address):
    assert cluster_address(address).address is None


def test_local_starts_a_cluster_whatever_runs_here(monkeypatch, listener):
    monkeypatch.setattr(RECORD, lambda: listener)
    monkeypatch.setenv("RAY_ADDRESS", listener)

    assert cluster_address("local").address is None


def test_the_record_of_a_cluster_that_is_gone_counts_for_nothing(monkeypatch, closed):
    monkeypatch.setattr(RECORD, lambda: closed)

    assert cluster_address(None).address is None


@pytest.mark.parametrize("source", ["cluster.ray_address", "RAY_ADDRESS"])
def test_auto_wants_a_cluster_that_was_started_here(source, monkeypatch):
    if source == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", "auto")

    with pytest.raises(UserError, match=f"{source} auto: no cluster .* `ray start --head`"):
        cluster_address("auto" if source == "cluster.ray_address" else None)


def test_an_address_without_a_port_is_named():
    with pytest.raises(UserError, match=r"cluster\.ray_address head-node: .*host:port"):
        cluster_address("head-node")


def test_where_nothing_listens_one_line_says_so_at_once(closed, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", closed)
    started = time.monotonic()

    cluster, found = check_ray(None)

    assert (cluster, found.level) == (None, "fatal")
    assert f"RAY_ADDRESS {closed}: no cluster answers" in found.verdict
    assert time.monotonic() - started < 15  # the promise of --check, not a measurement


def test_something_that_is_no_ray_is_found_out_within_15_seconds(listener):
    started = time.monotonic()

    _, found = check_ray(listener)

    assert found.level == "fatal"
    assert f"cluster.ray_address {listener}" in found.verdict
    assert "does not answer as Ray" in found.verdict
    assert time.monotonic() - started < 15


@pytest.fixture(scope="module")
def head():
    """A cluster that wants a token, and the variables that hold it."""
    with tempfile.TemporaryDirectory(prefix="l2a") as folder:
        token = Path(folder, "token")
        token.write_text("0123456789abcdef" * 4)
        # the folder holds what makes Ray leave 127.0.0.1 as it is
        variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONPATH": folder}
        with ray_head(Path(folder), variables) as address:
            yield address, variables


@pytest.mark.slow
def test_a_running_cluster_tells_what_it_has(head, monkeypatch):
    address, variables = head
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    cluster, found = check_ray(address)

    assert cluster is not None
    assert (cluster.gpus, cluster.cpus) == ((0,), 2)
    assert found.verdict.startswith(f"{address}: 1 nodes, 2 CPUs, 0 GPUs, ")


@pytest.mark.slow
def test_a_cluster_that_wants_a_token_says_which_variables_to_set(head):
    address, _ = head

    with pytest.raises(ConnectionError, match="RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"):
        probe_cluster(address)


LEFT_BEHIND = """
import sys, ray
ray.init(address=sys.argv[1], namespace="p/n", logging_level="ERROR", log_to_driver=False)
@ray.remote(num_cpus=0)
class Actor:
    def ready(self):
        return True
for name, space in (("synchronizer", "p/n"), ("other", "p/m")):
    actor = Actor.options(name=name, namespace=space, lifetime="detached").remote()
    ray.get(actor.ready.remote())
"""
PRESENT = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print(sorted(actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)))
"""


@pytest.mark.slow
def test_what_a_killed_run_left_is_ended_and_nothing_else(head, monkeypatch):
    """Given detached actors of two runs, when one starts again, then only its own are ended."""
    address, variables = head
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    subprocess.run([sys.executable, "-c", LEFT_BEHIND, address], check=True, timeout=60)

    assert end_stale_actors(address, "p/n") == ["synchronizer"]
    assert end_stale_actors(address, "p/n") == []

    present = subprocess.run(
        [sys.executable, "-c", PRESENT, address], check=True, capture_output=True, text=True, timeout=60
    )
    assert present.stdout.splitlines()[-1] == "['other']"


def test_a_cluster_that_hangs_is_told_in_a_line_without_the_program_that_asked_it(listener, monkeypatch):
    """Given something that takes connections and never speaks, when leftovers are to be ended, then it is named."""
    monkeypatch.setattr(ray_cluster, "_END_SECONDS", 1.0)

    with pytest.raises(UserError) as raised:
        end_stale_actors(listener, "p/n")

    assert str(raised.value) == (
        f"the Ray cluster at {listener} does not answer within 1 s; is it still running? RAY_ADDRESS=local starts a "
        "cluster for this run alone"
    )
