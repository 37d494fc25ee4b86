"""Settings, configs and tasks that the preflight is tested with."""

import json

from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.training.config_file import RunConfig
from tuner.learn_to_ask.training.preflight.data import dataset_findings, scan_dataset
from tuner.learn_to_ask.training.settings import TrainingSettings

PATIENT = {"role": "user", "content": "it hurts"}
DOCTOR = {"role": "assistant", "content": "where?"}
CONTINUE = {
    "cid": "1_0",
    "session_id": "1",
    "messages": [PATIENT],
    "decision_truth": "continue",
    "info_truth": "symptom: cough",
}
STOP = {**CONTINUE, "cid": "1_2", "decision_truth": "stop", "info_truth": ""}
SMALL = {"batch_size": 2, "total_epochs": 1}
GOOD_GRADE = "<think>fits</think><format_score>1.0</format_score><content_score>0.5</content_score>"


def settings(**changes):
    return TrainingSettings(**{**SMALL, **changes})


def run_config(tmp_path, *, tinker=False, raw=None, ray_address="local"):
    return RunConfig(
        raw=raw or {},
        resolved=raw or {},
        tinker=tinker,
        base_url=None,
        ray_address=ray_address,
        job_folder=tmp_path / "run" / "job",
    )


def judged(tmp_path, *tasks, **changes):
    """The findings on a dataset by check."""
    file = tmp_path / "train.jsonl"
    file.write_text("".join((task if isinstance(task, str) else json.dumps(task)) + "\n" for task in tasks))
    given = settings(**changes)
    scan = scan_dataset(file, load_domain(given.domain))
    return {finding.check: finding for finding in dataset_findings(scan, given)}


def model_folder(folder, *, weights=("model.safetensors",), index=None, tokenizer=("tokenizer.json",), size=2000):
    folder.mkdir()
    (folder / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    for name in tokenizer:
        (folder / name).write_text("{}")
    for name in weights:
        (folder / name).write_bytes(b"\1" * size)
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder
