"""The formats by name: what each is called, how its rows look, and what makes records of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tuner.learn_to_ask.core.records import GradedTask, Task, TaskWithRollouts
from tuner.learn_to_ask.data_prepare.formats import agentscope, chats, langfuse, otel, table, upstream
from tuner.learn_to_ask.data_prepare.formats.dialogue import Roles
from tuner.learn_to_ask.data_prepare.formats.rows import Converted, Outcome, Row, each

TABLE = "table"


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is converted from.

    Attributes:
        what: What its rows are, in the plural.
        looks: Whether a row looks like it.
        convert: From the rows of all files to outcomes; `None` for tables, which are sorted first.
        makes: The records that come out.
        key: The field that no two of them may share.
        nan: Whether its files may hold `NaN`.
    """

    what: str
    looks: Callable[[Any], bool]
    convert: Callable[[Iterable[Row], Roles], Iterator[Outcome]] | None
    makes: str = "sessions"
    key: str = "session_id"
    nan: bool = False


def _rowwise(convert: Callable[[Row, Roles], Converted]) -> Callable[[Iterable[Row], Roles], Iterator[Outcome]]:
    return lambda rows, roles: each(rows, lambda row: convert(row, roles))


def _labelled(record_type: type[Task]) -> Callable[[Iterable[Row], Roles], Iterator[Outcome]]:
    return lambda rows, _: each(rows, partial(upstream.from_labelled, record_type=record_type))


FORMATS = {
    "openai": Format("OpenAI chats", chats.is_openai, _rowwise(chats.from_openai)),
    "sharegpt": Format("ShareGPT conversations", chats.is_sharegpt, _rowwise(chats.from_sharegpt)),
    TABLE: Format("rows of a flat table", table.is_table_row, None),
    "langfuse": Format("Langfuse traces", langfuse.is_langfuse, langfuse.from_langfuse),
    "otel": Format("OpenTelemetry spans", otel.is_otel, otel.from_otel),
    "agentscope": Format("AgentScope memories", agentscope.is_agentscope, _rowwise(agentscope.from_agentscope)),
    "agentjet": Format(
        "AgentJet tasks", upstream.is_agentjet, lambda rows, _: each(rows, upstream.from_agentjet), "tasks", "cid"
    ),
    "upstream_processed": Format(
        "samples of the published step A", upstream.is_processed, upstream.from_processed, "samples", "cid"
    ),
    "upstream_tasks": Format("published tasks", upstream.is_task, _labelled(Task), "tasks", "cid"),
    "upstream_rollouts": Format(
        "published rollouts", upstream.is_rollouts, _labelled(TaskWithRollouts), "tasks with rollouts", "cid"
    ),
    "upstream_evaluation": Format(
        "published evaluations", upstream.is_evaluation, _labelled(GradedTask), "graded tasks", "cid", nan=True
    ),
}


def looks_like(value: object) -> str | None:
    """The first format that a row looks like, `None` for none of them."""
    return next((name for name, known in FORMATS.items() if known.looks(value)), None)
