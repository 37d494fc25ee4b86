"""The curves of a run, from event files that tensorboard itself wrote."""

import pytest

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.training.plot_training import PANELS, plot_curves, read_curves


def log(folder, tag, values):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, value in values:
            writer.add_scalar(tag, value, step)


def test_curves_of_explorer_and_trainer_come_back_in_order_of_steps(tmp_path):
    logs = tmp_path / "monitor" / "tensorboard"
    log(logs / "explorer", "rollout/reward/mean", [(1, 1.5), (2, 2.0)])
    log(logs / "trainer", "response_length/mean", [(1, 12.0)])

    assert read_curves(tmp_path) == {"rollout/reward/mean": [(1, 1.5), (2, 2.0)], "response_length/mean": [(1, 12.0)]}


def test_a_step_that_a_resumed_run_repeated_counts_once(tmp_path):
    folder = tmp_path / "monitor" / "tensorboard" / "explorer"
    log(folder, "rollout/reward/mean", [(1, 1.0), (2, 9.0)])
    log(folder, "rollout/reward/mean", [(2, 2.0), (3, 3.0)])

    curves = read_curves(tmp_path)

    assert [step for step, _ in curves["rollout/reward/mean"]] == [1, 2, 3]


def test_a_run_without_some_curves_is_drawn_all_the_same(tmp_path):
    plot_curves({"rollout/reward/mean": [(1, 1.0), (2, 2.0)]}, tmp_path / "training.png")

    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_logs_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no tensorboard logs"):
        read_curves(tmp_path)


def test_every_panel_shows_tags_that_a_training_step_logs():
    # The judge's metrics become rollout/<name>/mean, see test_main.
    judged = {
        "reward",
        "action_score",
        "content_score",
        "format_score",
        "stopped_when_to_stop",
        "stopped_when_to_continue",
    }

    shown = {tag.split("/")[1] for tags in PANELS.values() for tag in tags if tag.startswith("rollout/")}

    assert shown == judged
