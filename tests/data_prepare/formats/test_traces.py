"""Spans become the dialogue that was held, each message once, however much of it every span repeats."""

import json

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from run_scripts import CONVERT, read, run

from tuner.learn_to_ask.data_prepare.formats.dialogue import Roles
from tuner.learn_to_ask.data_prepare.formats.langfuse import from_langfuse
from tuner.learn_to_ask.data_prepare.formats.rows import Converted, Refused, Row


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def trace(number, asked, answered, **more):
    return {"id": f"t{number}", "timestamp": number, "sessionId": "s", "input": asked, "output": answered, **more}


def convert(*traces):
    rows = [Row(f"in:{number}", "", value) for number, value in enumerate(traces, start=1)]
    return [out for out in from_langfuse(rows, Roles()) if isinstance(out, Converted | Refused)]


def dialogue(*traces):
    (outcome,) = convert(*traces)
    return outcome.record.messages


rounds = st.tuples(st.sampled_from(["yes", "no", "hm"]), st.sampled_from(["Fever?", "Cough?"]))
turns = st.lists(rounds, min_size=1, max_size=6)


@given(turns, st.integers(1, 5), st.randoms(use_true_random=False))
def test_turns_histories_and_windows_of_them_are_the_same_dialogue(said, window, random):
    # Given each turn logged by itself, with all before it, or with the last few rounds before it
    whole = [message for patient, doctor in said for message in (user(patient), assistant(doctor))]
    by_turn = [trace(n, patient, doctor) for n, (patient, doctor) in enumerate(said)]
    history = [trace(n, whole[: 2 * n + 1], whole[2 * n + 1]) for n in range(len(said))]
    for traces in (by_turn, history):
        random.shuffle(traces)
        assert dialogue(*traces) == whole
    # A window shows what is new in it where its start does not repeat itself
    distinct = [{**message, "content": f"{message['content']} {n}"} for n, message in enumerate(whole)]
    windows = [trace(n, distinct[max(0, 2 * (n - window)) : 2 * n + 1], distinct[2 * n + 1]) for n in range(len(said))]
    assert dialogue(*windows) == distinct


def test_an_answer_that_was_given_again_replaces_the_first():
    first = trace(1, [user("a")], assistant("b"))
    second = trace(2, [user("a"), assistant("b"), user("c")], assistant("d"))
    again = trace(3, [user("a"), assistant("b"), user("c")], assistant("e"))
    assert dialogue(first, second, again) == [user("a"), assistant("b"), user("c"), assistant("e")]


def test_a_question_that_got_no_answer_and_was_sent_again_is_said_once():
    assert dialogue(trace(1, "a", None), trace(2, "a", "b")) == [user("a"), assistant("b")]


def test_an_output_with_the_whole_history_is_the_history():
    first = trace(1, {"messages": [user("a")]}, {"messages": [user("a"), assistant("b")]})
    second = trace(2, {"messages": [user("c")]}, {"messages": [user("a"), assistant("b"), user("c"), assistant("d")]})
    assert dialogue(first, second) == [user("a"), assistant("b"), user("c"), assistant("d")]


def test_a_history_that_is_not_what_was_logged_is_refused():
    (outcome,) = convert(
        trace(1, [user("a")], assistant("b")), trace(2, [user("x"), assistant("y"), user("c")], assistant("d"))
    )
    assert outcome.kind == "histories differ"
    assert "in:2" in outcome.reason


def test_a_trace_without_messages_is_refused_and_tools_do_not_talk():
    tool = {"id": "o", "type": "TOOL", "startTime": 1, "input": "rash", "output": "3 pages"}
    (outcome,) = convert(trace(1, {"question": 7}, None, observations=[tool]))
    assert (outcome.place, outcome.kind) == ("in:1", "no messages")


def test_exported_tables_and_downloads_are_traces_too():
    table = {
        **{
            "id": "o1",
            "trace_id": "t1",
            "session_id": "s",
            "type": "GENERATION",
            "start_time": "2026-03-01 10:00:00.5",
        },
        "input": json.dumps([user("a")]),
        "output": json.dumps({"choices": [{"message": assistant("b")}]}),
    }
    download = {"trace": trace(1, [user("a")], assistant("b")), "observations": []}
    session = {"id": "s", "traces": [{**trace(1, [user("a")], assistant("b")), "sessionId": None}]}
    for row in (table, download, session):
        (outcome,) = convert(row)
        assert (outcome.record.session_id, outcome.record.messages) == ("s", [user("a"), assistant("b")])


def test_what_the_console_exporter_of_opentelemetry_prints_is_read(tmp_path):
    # Given two turns of a conversation, traced by the real SDK
    provider = TracerProvider()
    with (tmp_path / "in.json").open("w") as file:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=file)))
        tracer = provider.get_tracer("test")
        for asked, answered in (("a", "b"), ("c", "d")):
            with tracer.start_as_current_span("request"), tracer.start_as_current_span("invoke_agent") as span:
                span.set_attribute("gen_ai.conversation.id", "c1")
                for name, role, text in (("input", "user", asked), ("output", "assistant", answered)):
                    parts = [{"type": "text", "content": text}]
                    span.set_attribute(f"gen_ai.{name}.messages", json.dumps([{"role": role, "parts": parts}]))
        provider.shutdown()

    result = run(tmp_path, CONVERT, "--from", "otel", "in.json", "out.jsonl")

    assert (result.returncode, result.stderr) == (0, "")
    (session,) = read(tmp_path / "out.jsonl")
    assert (session["session_id"], [message["content"] for message in session["messages"]]) == (
        "c1",
        ["a", "b", "c", "d"],
    )
