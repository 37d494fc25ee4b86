"""The preflight of models and disk."""

import json
from types import SimpleNamespace

import pytest
from fault_server import Fault, FaultServer, http_error
from preflight_inputs import model_folder

from tuner.learn_to_ask.models.model_files import missing_model_files
from tuner.learn_to_ask.training.preflight import models as model_checks
from tuner.learn_to_ask.training.preflight.models import ModelPlace, check_disk, locate_model


def test_a_complete_local_model_is_fine_and_its_parameters_are_estimated(tmp_path):
    place = locate_model(str(model_folder(tmp_path / "m", size=2000)))

    assert place == ModelPlace("local folder", "", 1000)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"tokenizer": ("vocab.json", "merges.txt"), "weights": ("pytorch_model.bin",)}, []),
        ({"tokenizer": ("vocab.json",)}, ["the tokenizer files"]),
        ({"weights": ()}, ["weights (*.safetensors or *.bin)"]),
        ({"weights": ("training_args.bin",)}, ["weights (*.safetensors or *.bin)"]),
        ({"index": {"a": "model.safetensors", "b": "shard-2.safetensors"}}, ["shard-2.safetensors"]),
        ({"index": ["no", "mapping"]}, ["a readable model.safetensors.index.json"]),
        ({"size": 0}, ["the content of model.safetensors (empty or a git-lfs pointer)"]),
    ],
)
def test_what_a_model_folder_lacks_is_named(files, missing, tmp_path):
    assert missing_model_files(model_folder(tmp_path / "m", **files)) == missing


def test_on_tinker_the_weights_are_not_needed(tmp_path):
    folder = model_folder(tmp_path / "m", weights=())

    assert locate_model(str(folder), weights=False).problem == ""
    assert "lacks weights" in locate_model(str(folder)).problem


def test_a_path_that_holds_no_model_is_named(tmp_path):
    assert "no such model folder" in locate_model(str(tmp_path / "gone")).problem


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback that knows one model, and an empty cache."""
    from huggingface_hub import constants

    siblings = [{"rfilename": name} for name in ("config.json", "tokenizer.json", "model.safetensors")]
    info = {
        "id": "org/known",
        "siblings": siblings,
        "safetensors": {"parameters": {"BF16": 7000}, "total": 7000},
    }

    def plan(call):
        known = call.path.startswith("/api/models/org/known")
        return Fault(body=json.dumps(info).encode()) if known else http_error(404, X_Error_Code="RepoNotFound")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with FaultServer(plan) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.base_url.removesuffix("/v1"))
        yield server


def test_a_model_of_the_hub_is_looked_up_and_not_downloaded(hub):
    place = locate_model("org/known")

    assert place == ModelPlace("on the hub, downloaded at the start", "", 7000)
    assert len(hub.calls) == 1


def test_a_model_that_the_hub_does_not_know_is_one_line(hub):
    place = locate_model("org/unknown")

    assert "RepositoryNotFoundError" in place.problem
    assert "\n" not in place.problem


def test_a_cached_model_needs_no_hub(hub, tmp_path):
    repository = tmp_path / "cache" / "models--org--cached"
    (repository / "snapshots").mkdir(parents=True)
    model_folder(repository / "snapshots" / ("c" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)

    assert locate_model("org/cached").where == "in the hub's cache"
    assert hub.calls == []


def test_offline_the_hub_is_not_asked(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert "HF_HUB_OFFLINE" in locate_model("org/known").problem
    assert hub.calls == []


@pytest.mark.parametrize(("free", "level"), [(16_000, "ok"), (15_999, "fatal")])
def test_a_checkpoint_and_its_export_take_16_bytes_a_parameter(free, level, tmp_path, monkeypatch):
    monkeypatch.setattr(model_checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    found = check_disk(tmp_path / "not" / "yet", 1000)

    assert found.level == level
    assert f" in {tmp_path}," in found.verdict
