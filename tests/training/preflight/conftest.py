"""What several of the preflight's tests start from."""

import pytest


@pytest.fixture
def machine(monkeypatch):
    """No GPU, no cluster, no hub."""
    import torch
    from huggingface_hub import constants

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("ray._private.utils.get_num_cpus", lambda: 64)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
