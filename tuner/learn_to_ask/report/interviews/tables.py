"""The tables of whole interviews as cells of text, the same for Markdown, for the page and for the terminal."""

from collections.abc import Iterator

from tuner.learn_to_ask.report.evaluation import names_or_unknown
from tuner.learn_to_ask.report.interviews.results import InterviewReport
from tuner.learn_to_ask.report.tables import NOT_AVAILABLE, Table, interval, text_of

LOGGED = "logged questions"


def interview_tables(report: InterviewReport) -> Iterator[Table]:
    """All tables, in the order in which they are shown."""
    yield interview_metrics_table(report)
    yield _curve(report)
    if report.comparisons:
        yield _overlap(report)
    yield _meanings(report)
    yield _provenance(report)


def interview_metrics_table(report: InterviewReport, *, title: str = "Metrics") -> Table:
    """A row for each metric: every policy, the logged expert's questions, and each change with its verdict."""
    header = ["metric", *(one.name for one in report.policies), LOGGED]
    for one in report.comparisons:
        header += [f"{one.name} \N{MINUS SIGN} {one.baseline}", "verdict"]
    rows = []
    for key, name in report.titles.items():
        row = [name, *(interval(one.metrics[key]) for one in report.policies), interval(report.logged.metrics[key])]
        for comparison in report.comparisons:
            change = comparison.metrics[key]
            row += [interval(change.difference, signed=True), change.verdict]
        rows.append(row)
    notes = [
        f"Whole interviews, one for each session, broken off after {report.max_turns} turns. In brackets: "
        f"{report.confidence:.0%} bootstrap intervals over sessions, {report.resamples:,} resamples; {NOT_AVAILABLE} "
        "where nothing or only one session has a say.",
        f"{LOGGED.capitalize()}: what the {report.assistant} of the log asked, put to the same users.",
    ]
    if report.comparisons:
        notes.append(
            "Differences are paired, over the sessions both have. Not distinguishable: the interval holds 0. More, "
            f"less: neither is better by itself. No correction for testing {len(report.titles)} metrics at once."
        )
    return Table("metrics", title, notes, header, rows)


def interviews_text(report: InterviewReport) -> str:
    """The table of metrics for the terminal, columns in line."""
    return text_of(interview_metrics_table(report))


def _curve(report: InterviewReport) -> Table:
    """Coverage after each turn."""
    sides = [*(one.curve for one in report.policies), report.logged.curve]
    rows = [[str(turn), *map(interval, after)] for turn, after in enumerate(zip(*sides, strict=True))]
    notes = [
        "The share of the facts that came to light by then. What is known stays known after the end of an interview, "
        "so that all sessions count at every turn."
    ]
    return Table(
        "coverage", "Coverage by turn", notes, ["after turn", *(one.name for one in report.policies), LOGGED], rows
    )


def _overlap(report: InterviewReport) -> Table:
    """What the comparisons rest on."""
    rows = [
        [
            f"{one.name} against {one.baseline}",
            f"{one.common:,}",
            f"{one.only_in_baseline:,}",
            f"{one.only_in_other:,}",
        ]
        for one in report.comparisons
    ]
    header = ["comparison", "common sessions", "only in the first", "only in the other"]
    return Table("overlap", "What is compared", [], header, rows)


def _meanings(report: InterviewReport) -> Table:
    """What each metric is."""
    rows = [[name, report.meanings[key], report.better[key] or ""] for key, name in report.titles.items()]
    return Table("meanings", "What the metrics are", [], ["metric", "what it is", "better"], rows, texts=3)


def _provenance(report: InterviewReport) -> Table:
    """Where the figures come from."""
    rows = [
        [one.name, one.file, *map(names_or_unknown, (one.policies, one.users, one.samplings)), f"{one.sessions:,}"]
        for one in report.policies
    ]
    header = ["name", "file", "policy", f"{report.user} answers by", "sampling", "sessions"]
    return Table("provenance", "Provenance", [], header, rows, texts=5)
