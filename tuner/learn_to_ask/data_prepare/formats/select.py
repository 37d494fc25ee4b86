"""The formats by name: what each is called, how its rows look, and what makes records of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tuner.learn_to_ask.core.records import GradedTask, Task, TaskWithRollouts
from tuner.learn_to_ask.data_prepare.formats import (
    agentscope,
    chats,
    langfuse,
    otel,
    table,
    upstream_samples,
    upstream_tasks,
)
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


def _labelled(
    what: str,
    looks: Callable[[Any], bool],
    convert: Callable[[Row, Roles], Converted],
    *,
    makes: str,
    nan: bool = False,
) -> Format:
    return Format(what, looks, _rowwise(convert), makes=makes, key="cid", nan=nan)


FORMATS = {
    "openai": Format("OpenAI chats", chats.is_openai, _rowwise(chats.from_openai)),
    "sharegpt": Format("ShareGPT conversations", chats.is_sharegpt, _rowwise(chats.from_sharegpt)),
    TABLE: Format("rows of a flat table", table.is_table_row, None),
    "langfuse": Format("Langfuse traces", langfuse.is_langfuse, langfuse.from_langfuse),
    "otel": Format("OpenTelemetry spans", otel.is_otel, otel.from_otel),
    "agentscope": Format("AgentScope memories", agentscope.is_agentscope, _rowwise(agentscope.from_agentscope)),
    "agentjet": _labelled("AgentJet tasks", upstream_tasks.is_agentjet, upstream_tasks.from_agentjet, makes="tasks"),
    "upstream_processed": Format(
        "samples of the published step A",
        upstream_samples.is_processed,
        upstream_samples.from_processed,
        makes="samples",
        key="cid",
    ),
    "upstream_tasks": _labelled(
        "published tasks",
        upstream_tasks.is_task,
        partial(upstream_tasks.from_labelled, record_type=Task),
        makes="tasks",
    ),
    "upstream_rollouts": _labelled(
        "published rollouts",
        upstream_tasks.is_rollouts,
        partial(upstream_tasks.from_labelled, record_type=TaskWithRollouts),
        makes="tasks with rollouts",
    ),
    "upstream_evaluation": _labelled(
        "published evaluations",
        upstream_tasks.is_evaluation,
        partial(upstream_tasks.from_labelled, record_type=GradedTask),
        makes="graded tasks",
        nan=True,
    ),
}


def looks_like(value: object) -> str | None:
    """The first format that a row looks like, `None` for none of them."""
    return next((name for name, known in FORMATS.items() if known.looks(value)), None)
