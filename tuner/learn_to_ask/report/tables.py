"""The report's tables as cells of text, the same for Markdown and for the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.learn_to_ask.evaluation.bootstrap import Estimate
from tuner.learn_to_ask.evaluation.metrics import METRICS
from tuner.learn_to_ask.evaluation.stop_timing import STOP_METRICS
from tuner.learn_to_ask.report.evaluation import names_or_unknown
from tuner.learn_to_ask.report.results import EvaluationSummary, Group, Report

NOT_AVAILABLE = "n/a"
_EARLY = ((0,), (1,), (2,), ())  # turns that are counted together; the rest last
_BREAKDOWN = ("total_reward", "total_decision_accuracy")  # report.json has every metric


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its heading.

    Attributes:
        key: Its place in the page.
        title: Heading of its section.
        notes: Sentences under it.
        header: Column names.
        rows: Cells; the first `texts` of each row are text, the others numbers, aligned right.
        texts: See above.
    """

    key: str
    title: str
    notes: Sequence[str]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


def tables(report: Report) -> Iterator[Table]:
    """All tables, in the order in which they are shown."""
    yield metrics_table(report)
    if report.comparisons:
        yield _overlap(report)
    yield _confusion(report)
    user = report.evaluations[0].user
    yield _breakdown(
        report,
        [one.by_depth for one in report.evaluations],
        key="depth",
        title="By turn depth",
        what=f"{user} turns",
        note=f"{user.capitalize()} turns: how often the {user} has spoken in the context, consecutive messages "
        "counting once.",
    )
    yield _breakdown(
        report,
        [one.by_diagnosis for one in report.evaluations],
        key="diagnosis",
        title="By diagnosis",
        what="diagnosis",
        note="Most frequent first.",
    )
    yield _stop_timing(report)
    yield _coverage(report)
    yield _best_of(report)
    yield _reliability(report)
    yield _provenance(report)


def number(value: float | None, *, signed: bool = False) -> str:
    """Three decimals, a true minus sign, n/a for nothing."""
    if value is None:
        return NOT_AVAILABLE
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(estimate: Estimate, *, signed: bool = False) -> str:
    """A value with its interval, `0.436 [0.401, 0.470]`."""
    if estimate.value is None:
        return NOT_AVAILABLE
    value = number(estimate.value, signed=signed)
    if estimate.low is None or estimate.high is None:
        return f"{value} [{NOT_AVAILABLE}]"
    return f"{value} [{number(estimate.low, signed=signed)}, {number(estimate.high, signed=signed)}]"


def metrics_table(report: Report) -> Table:
    """The table in the published layout, with intervals, differences and the published figures."""
    names = [one.name for one in report.evaluations]
    header = ["metric", *names]
    for one in report.comparisons:
        header += [f"{one.name} \N{MINUS SIGN} {one.baseline}", "verdict"]
    header += [f"published: {column}" for column in report.published]
    rows = []
    for key, title in report.titles.items():
        row = [title, *(interval(one.metrics[key]) for one in report.evaluations)]
        for comparison in report.comparisons:
            difference = comparison.metrics[key]
            row += [interval(difference.difference, signed=True), difference.verdict]
        row += [number(values[key]) if key in values else "" for values in report.published.values()]
        rows.append(row)
    notes = [
        f"In brackets: {report.confidence:.0%} bootstrap intervals, {report.resamples:,} resamples of whole sessions; "
        f"{NOT_AVAILABLE} where nothing or only one session has a say."
    ]
    if report.comparisons:
        notes.append(
            "Differences are paired, over the samples both evaluations have. Not distinguishable: the interval holds "
            f"0. No correction for testing {len(METRICS)} metrics at once."
        )
    notes.append(report.published_note)
    return Table("metrics", "Metrics", notes, header, rows)


def metrics_text(report: Report) -> str:
    """The table of metrics for the terminal: columns in line, without the published figures."""
    return text_of(metrics_table(report), columns=-len(report.published))


def text_of(table: Table, *, columns: int | None = None) -> str:
    """A table for the terminal: columns in line.

    Args:
        table: Without its notes.
        columns: How many are shown; counted from the right when negative.
    """
    rows = [row[:columns] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < table.texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _overlap(report: Report) -> Table:
    """What the comparisons rest on."""
    rows = [
        [
            f"{one.name} against {one.baseline}",
            f"{one.common:,}",
            f"{one.sessions:,}",
            f"{one.only_in_baseline:,}",
            f"{one.only_in_other:,}",
        ]
        for one in report.comparisons
    ]
    header = ["comparison", "common samples", "their sessions", "only in the first", "only in the other"]
    return Table("overlap", "What is compared", [], header, rows)


def _confusion(report: Report) -> Table:
    """Decisions against the truth, counts and shares."""
    rows = []
    for one in report.evaluations:
        matrix = one.confusion
        for truth, counts in (
            ("continue", (matrix.continue_continue, matrix.continue_stop)),
            ("stop", (matrix.stop_continue, matrix.stop_stop)),
        ):
            rows.append([one.name, truth, *(share_of(count, sum(counts)) for count in counts)])
    notes = ["Rollouts that have scores, by what was right and what they did."]
    return Table("confusion", "Continue or stop", notes, ["evaluation", "right", "continued", "stopped"], rows, texts=2)


def share_of(count: int, total: int) -> str:
    """A count with its share, `12 (8.0%)`."""
    return f"{count:,} ({count / total:.1%})" if total else f"{count:,} ({NOT_AVAILABLE})"


def _breakdown(
    report: Report, groups: Sequence[Sequence[Group]], *, key: str, title: str, what: str, note: str
) -> Table:
    """Groups as rows; for each evaluation the metrics that matter most."""
    names = [one.name for one in report.evaluations]
    rows = []
    for side_by_side in zip(*groups, strict=True):
        counts = [f"{group.samples:,}" for group in side_by_side]
        row = [side_by_side[0].label, " / ".join(counts if len(set(counts)) > 1 else counts[:1])]
        for metric in _BREAKDOWN:
            row += [interval(group.metrics[metric]) for group in side_by_side]
        rows.append(row)
    header = [what, "samples", *(f"{report.titles[metric]}: {name}" for metric in _BREAKDOWN for name in names)]
    return Table(key, title, [note], header, rows)


def _stop_timing(report: Report) -> Table:
    """How many turns too early stops come."""
    rows = []
    for one in report.evaluations:
        timing = one.stop_timing
        stops = sum(timing.early.values()) + timing.end_unknown
        binned = [sum(timing.early.get(turns, 0) for turns in turns_of) for turns_of in _EARLY[:-1]]
        binned.append(sum(timing.early.values()) - sum(binned))
        cells = [share_of(count, stops) for count in (*binned, timing.end_unknown)]
        rows.append([one.name, *(interval(estimate) for estimate in timing.metrics.values()), f"{stops:,}", *cells])
    user = report.evaluations[0].user
    notes = [f"In turns of the {user}, from where the log stops; means with intervals, then how many stops came when."]
    notes += [f"{metric.title}: {metric.meaning}." for metric in STOP_METRICS.values()]
    notes.append("End unknown: the file has no later sample of the session where the log stops; in no mean.")
    titles = [metric.title for metric in STOP_METRICS.values()]
    header = ["evaluation", *titles, "stops", "in time", "1 early", "2 early", "3 or more early", "end unknown"]
    return Table("stops", "When it stops", notes, header, rows)


def _coverage(report: Report) -> Table:
    """Which fields questions ask for."""
    rows = []
    for side_by_side in zip(*(one.coverage.fields for one in report.evaluations), strict=True):
        samples, items = (
            " / ".join(dict.fromkeys(f"{count:,}" for count in counts))
            for counts in ([field.samples for field in side_by_side], [field.items for field in side_by_side])
        )
        rows.append([side_by_side[0].label, samples, items, *(interval(field.asked) for field in side_by_side)])
    matched = [
        f"{one.name} {share_of(one.coverage.full_content_unmatched, one.coverage.full_content)}"
        for one in report.evaluations
    ]
    notes = [
        "The share of a sample's items of each field that a rollout asks for, by shared words, no grader: a question "
        "is about the item with which it shares most telling words, those of the logged question and answer counted "
        "where the file holds them. A message asks for no more items than it has questions, and one that stops for "
        "none, so several items left mean small shares: compare evaluations.",
        "Words miss some questions. Of the questions with full content score they find "
        f"no item in: {', '.join(matched)}.",
    ]
    header = ["field", "samples", "items", *(one.name for one in report.evaluations)]
    return Table("fields", "Asked for, by field (shared words, no grader)", notes, header, rows)


def _best_of(report: Report) -> Table:
    """What the best of several rollouts is worth."""
    most = max(len(one.best_of.rewards) for one in report.evaluations)
    rows = [
        [
            str(k),
            *(
                interval(one.best_of.rewards[k - 1]) if k <= len(one.best_of.rewards) else ""
                for one in report.evaluations
            ),
        ]
        for k in range(1, most + 1)
    ]
    over = [f"{one.best_of.samples:,} of {one.samples:,} ({one.name})" for one in report.evaluations]
    notes = [
        "Expected best total reward of k rollouts of a sample: the mean over all choices of k of its rollouts, which "
        "is unbiased (pass@k of arXiv 2107.03374, for values). Over samples of which every rollout has a reward: "
        f"{', '.join(over)}."
    ]
    return Table("best", "Best of k", notes, ["k", *(one.name for one in report.evaluations)], rows)


def _reliability(report: Report) -> Table:
    """How far the grader agrees with itself."""
    rows = []
    for one in report.evaluations:
        for score, found in one.reliability.items():
            rows.append(
                [
                    one.name,
                    score,
                    f"{found.rollouts:,}",
                    NOT_AVAILABLE if found.exact is None else f"{found.exact:.1%}",
                    number(found.mean_absolute_difference),
                    number(found.alpha),
                ]
            )
    notes = [
        "Over rollouts graded more than once (--grade_repeat of step 3). Alpha: Krippendorff's for interval data, 1 "
        "is perfect, 0 is chance."
    ]
    header = ["evaluation", "score", "rollouts", "equal pairs", "mean difference", "alpha"]
    return Table("reliability", "Grader reliability", notes, header, rows, texts=2)


def _provenance(report: Report) -> Table:
    """Where the figures come from, and what is missing from them."""
    rows = [
        [one.name, one.file, *map(names_or_unknown, (one.policies, one.graders, one.samplings)), *_counts(one)]
        for one in report.evaluations
    ]
    header = [
        "evaluation",
        "file",
        "policy",
        "grader",
        "sampling",
        "samples",
        "sessions",
        "rollouts",
        "failed gradings",
        "samples without scores",
    ]
    return Table("provenance", "Provenance", [], header, rows, texts=5)


def _counts(one: EvaluationSummary) -> list[str]:
    """How much there is."""
    counts = (one.samples, one.sessions, one.rollouts, one.failed, one.samples_without_scores)
    return [f"{count:,}" for count in counts]
