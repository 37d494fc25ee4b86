"""An `openai` engine over a server of the test's own."""

import pytest
from openai_runs import KEY

from tuner.learn_to_ask.engines.openai_address import Endpoint
from tuner.learn_to_ask.engines.openai_engine import OpenAIEngine


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def make_engine():
    """Engines with short waits, closed after the test."""
    engines = []

    def make(server, *, concurrency=4, **changes):
        arguments = {
            "connect_timeout": 5.0,
            "read_timeout": 5.0,
            "max_retries": 3,
            "backoff_base": 0.001,
        }
        base_url = server if isinstance(server, str) else server.base_url
        engine = OpenAIEngine(Endpoint(base_url=base_url, model="m", **(arguments | changes)), concurrency=concurrency)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()
