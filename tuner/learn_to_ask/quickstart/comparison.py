"""The quickstart's report: one table of base against tuned policy, one reward curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tuner.learn_to_ask.bootstrap import interval, session_bootstrap
from tuner.learn_to_ask.metrics import METRICS, ScoredRollout, compute_metrics


def comparison_table(base: Sequence[ScoredRollout], tuned: Sequence[ScoredRollout]) -> str:
    """A Markdown table of every metric, with the 95% bootstrap interval of the difference over sessions.

    Args:
        base: Pairs of the base policy's evaluation.
        tuned: Pairs of the tuned policy's, on the same tasks.
    """
    before, after = compute_metrics(base), compute_metrics(tuned)
    resampled = session_bootstrap([base, tuned])
    rows = []
    for key, metric in METRICS.items():
        left, right = before[key], after[key]
        if left is None or right is None:
            rows.append((metric.title, _number(left), _number(right), "n/a"))
            continue
        gain = interval(right - left, resampled[key][1] - resampled[key][0])
        rows.append(
            (metric.title, _number(left), _number(right), f"{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
        )
    width = max(len(row[0]) for row in rows)
    lines = [
        f"| {'Metric':<{width}} |  Base | Tuned | Difference [95% interval] |",
        f"|{'-' * (width + 2)}|------:|------:|--------------------------:|",
        *(f"| {title:<{width}} | {left:>5} | {right:>5} | {gain:>25} |" for title, left, right, gain in rows),
    ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    """Three decimals, or n/a for a metric over nothing."""
    return "n/a" if value is None else f"{value:.3f}"


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
