"""The training set as the trainer reads it: checked line by line, alone in a folder of its own."""

from pathlib import Path

from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, require_input, write_jsonl

TRAIN_FILES = ("train.jsonl", "train.jsonl.gz", "train.jsonl.zst", "train.parquet")


def train_file(data: Path) -> Path:
    """The train split that `--data` names: the file itself, or in a folder `train.jsonl`, compressed or as Parquet.

    Raises:
        UserError: When there is no such file, more than one, or it is empty.
    """
    if not data.is_dir():
        return require_input(data, "--data")
    there = [data / name for name in TRAIN_FILES if (data / name).exists()]
    if len(there) > 1:
        raise UserError(f"--data {data}: holds {' and '.join(file.name for file in there)}; name one of them")
    return require_input(there[0] if there else data / TRAIN_FILES[0], "--data")


def stage_dataset(data: Path, folder: Path) -> int:
    """Copies the train split to `folder/train.jsonl`.

    `datasets.load_dataset` takes every file of a folder whose name holds "train" for the train split, so
    the raw `train_origin.jsonl` beside `train.jsonl` would be trained on; and one diagnosis that is no
    string would break its schema. The copy holds only what workflow and judge read.

    Args:
        data: The file, or the folder that holds it, see `train_file`.
        folder: Gets the copy; must be visible to every node of the cluster.

    Returns:
        The number of tasks.

    Raises:
        UserError: When there is no such file, or the first line that is no task.
    """
    file = train_file(data)
    report = ReadReport()
    tasks = read_jsonl(file, Task, unique_key="cid", report=report, strict=True)
    return write_jsonl(folder / "train.jsonl", (task.model_dump(exclude={"diagn", "session_id"}) for task in tasks))
