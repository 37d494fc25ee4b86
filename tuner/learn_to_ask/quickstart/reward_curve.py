"""Draws how the reward rose in training."""

from collections.abc import Mapping
from pathlib import Path


def plot_reward_curve(rewards: Mapping[int, float], path: Path) -> None:
    """Draws the mean reward of each training step.

    Args:
        rewards: Step -> mean reward of its rollouts.
        path: The PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(list(rewards), list(rewards.values()), marker="o")
    axes.set(title="GRPO on the sample logs", xlabel="training step", ylabel="mean reward of the rollouts (0 to 4)")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
