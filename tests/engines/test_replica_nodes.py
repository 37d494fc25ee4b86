"""What nodes that are unlike each other are told, on a real Ray cluster whose nodes find different packages."""

from pathlib import Path

import pytest
from fake_cluster import fake_cluster

from tuner.learn_to_ask.engines.replicas.nodes import JoinedCluster, check_nodes, facts_here
from tuner.learn_to_ask.errors import UserError

pytestmark = pytest.mark.slow


def with_vllm(folder: Path, version: str) -> Path:
    """A folder in which a vLLM of this version is found, though not much of one."""
    (folder / "vllm").mkdir(parents=True)
    (folder / "vllm" / "__init__.py").touch()
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (info / "top_level.txt").write_text("vllm\n")
    return folder


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A cluster of four nodes: two alike, one with an older vLLM, one with none; and the nodes by their GPUs."""
    folder = tmp_path_factory.mktemp("packages")
    new, old = with_vllm(folder / "new", "0.19.0"), with_vllm(folder / "old", "0.18.1")
    with fake_cluster() as cluster:
        for gpus, path in ((1, new), (2, new), (3, old), (4, None)):
            cluster.add(gpus, path)
        joined = JoinedCluster(cluster.address, setting="--ray_address")
        yield joined, {node.gpus: node for node in joined.nodes()}
        joined.close()


def test_nodes_that_are_alike_say_what_they_have(joined, tmp_path):
    _, nodes = joined

    facts = check_nodes([nodes[1], nodes[2]], [str(tmp_path)], flag="--replicas")

    assert facts["vllm"] == "0.19.0"
    assert {name: facts[name] for name in ("python", "transformers", "learn2ask")} == {
        name: facts_here()[name] for name in ("python", "transformers", "learn2ask")
    }


def test_nodes_with_different_versions_are_named_with_them(joined):
    _, nodes = joined

    with pytest.raises(UserError) as caught:
        check_nodes([nodes[1], nodes[2], nodes[3]], [], flag="--eval_replicas")

    assert str(caught.value) == (
        f"--eval_replicas: nodes differ in vllm: 0.19.0 on {nodes[1].name}, 0.19.0 on {nodes[2].name}, "
        f"0.18.1 on {nodes[3].name}; install the same on all"
    )


def test_a_node_without_vllm_is_named(joined):
    _, nodes = joined

    with pytest.raises(UserError, match=r"--replicas: no vLLM on node 127.0.0.1 \(\w+\); there: pip install"):
        check_nodes([nodes[1], nodes[4]], [], flag="--replicas")


def test_a_model_that_nodes_do_not_see_is_named_with_them(joined, tmp_path):
    _, nodes = joined

    with pytest.raises(UserError) as caught:
        check_nodes([nodes[1], nodes[2]], [str(tmp_path / "model")], flag="--replicas")

    assert str(caught.value).startswith(
        f"{tmp_path / 'model'}: not seen by node {nodes[1].name}, {nodes[2].name}; put it on a disk"
    )


def test_a_run_has_one_cluster(joined):
    with pytest.raises(UserError, match=r"this run has joined another cluster; name one for all"):
        JoinedCluster("127.0.0.1:9", setting="--ray_address")


def test_a_second_pool_shares_the_connection_of_the_first(joined):
    cluster, nodes = joined

    second = JoinedCluster(cluster.name, setting="--ray_address")
    assert len(second.nodes()) == len(nodes)
    second.close()

    assert len(cluster.nodes()) == len(nodes)
