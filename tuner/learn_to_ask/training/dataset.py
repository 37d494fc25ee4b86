"""The training set as the trainer reads it: checked line by line, alone in a folder of its own."""

from pathlib import Path

from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, require_input, write_jsonl


def train_file(data: Path) -> Path:
    """The train split that `--data` names: `train.jsonl` in a folder, or the file itself.

    Raises:
        UserError: When there is no such file, or it is empty.
    """
    return require_input(data / "train.jsonl" if data.is_dir() else data, "--data")


def stage_dataset(data: Path, folder: Path) -> int:
    """Copies the train split to `folder/train.jsonl`.

    `datasets.load_dataset` takes every file of a folder whose name holds "train" for the train split, so
    the raw `train_origin.jsonl` beside `train.jsonl` would be trained on; and one diagnosis that is no
    string would break its schema. The copy holds only what workflow and judge read.

    Args:
        data: The folder that holds `train.jsonl`, or the file itself.
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
