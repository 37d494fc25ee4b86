"""Draws the curves of a training run to a PNG: `python -m tuner.learn_to_ask.training.plot_training JOB_FOLDER`.

Reads what the tensorboard monitor wrote, the default; the job folder is checkpoint_root_dir/project/name.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, run
from tuner.learn_to_ask.errors import UserError

# Title -> tag of the curves drawn in it, with their labels.
PANELS: Mapping[str, Mapping[str, str]] = {
    "reward": {"rollout/reward/mean": "mean"},
    "scores": {
        "rollout/action_score/mean": "action",
        "rollout/content_score/mean": "content",
        "rollout/format_score/mean": "format",
    },
    "share of stop responses": {
        "rollout/stopped_when_to_stop/mean": "where stopping is right",
        "rollout/stopped_when_to_continue/mean": "where asking is right",
    },
    "response length (tokens)": {"response_length/mean": "mean", "response_length/max": "longest"},
}

Curves = dict[str, list[tuple[int, float]]]


def read_curves(job_folder: Path) -> Curves:
    """The scalars of a run: tag -> (step, value) in order.

    Args:
        job_folder: Holds monitor/tensorboard.

    Raises:
        UserError: When no scalar was logged there.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: Curves = {}
    for folder in sorted({file.parent for file in job_folder.glob("monitor/tensorboard/**/events.out.tfevents.*")}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            by_step = {event.step: event.value for event in events.Scalars(tag)}  # a resumed step counts once
            curves[tag] = sorted(by_step.items())
    if not curves:
        raise UserError(
            f"{job_folder}: holds no tensorboard logs (monitor/tensorboard/**); name the folder that main.py printed, "
            "of a run whose monitor_type is tensorboard"
        )
    return curves


def plot_curves(curves: Curves, path: Path) -> None:
    """Draws one panel for each subject.

    Args:
        curves: As `read_curves` gives them; what a run did not log stays empty.
        path: The PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (title, tags) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for tag, label in tags.items():
            steps, values = zip(*curves.get(tag, [(None, None)]), strict=True)
            axes.plot(steps, values, label=label)
        axes.set(title=title, xlabel="training step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> int:
    """Reads the flags and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("job_folder", type=Path, help="the folder main.py printed: checkpoint_root_dir/project/name")
    parser.add_argument("--output", type=Path, help="the PNG; default: training.png in the job folder")
    arguments = parser.parse_args()
    output = arguments.output or arguments.job_folder / "training.png"
    plot_curves(read_curves(arguments.job_folder), output)
    print(f"drawn: {output}")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
