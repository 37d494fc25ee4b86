"""Set-up of the tests on faked GPUs; `make test-gpu-path` runs them in the environment of the GPU lock."""

import sys
from pathlib import Path

import pytest
from fake_gpus import HERE, base_environment, run_main


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: left to `make test-gpu-path-all`")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `data/`, `policy/` and `grader/`."""
    folder = tmp_path_factory.mktemp("models")
    log = folder / "log"
    arguments = [sys.executable, str(HERE / "build_models.py"), str(folder)]
    assert run_main(arguments, env=base_environment(folder), log=log) == 0, log.read_text()
    return folder
