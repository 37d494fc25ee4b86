"""Memories as the installed AgentScope writes them."""

import asyncio
import json

from agentscope.agent import AgentBase
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg, TextBlock, ThinkingBlock
from agentscope.session import JSONSession
from run_scripts import CONVERT, error_of, read, run, summary_of, write

from tuner.learn_to_ask.data_prepare.formats.agentscope import from_agentscope
from tuner.learn_to_ask.data_prepare.formats.dialogue import Roles
from tuner.learn_to_ask.data_prepare.formats.rows import Row

SAID = [
    Msg("patient", "My ear hurts", "user"),
    Msg(
        "doctor",
        [ThinkingBlock(type="thinking", thinking="hm"), TextBlock(type="text", text="Since when?")],
        "assistant",
    ),
    Msg("patient", "today", "user"),
]
CONTENTS = ["My ear hurts", "Since when?", "today"]


async def memory_of(messages):
    memory = InMemoryMemory()
    await memory.add(messages)
    await memory.add(Msg("user", "<system-hint>hm</system-hint>", "user"), marks="hint")
    return memory


class Doctor(AgentBase):
    """An agent that remembers."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory


def contents(session):
    return [message["content"] for message in session["messages"]]


def test_the_sessions_that_agentscope_saves_in_a_folder_are_read_as_one_log(tmp_path):
    async def save():
        for name in ("visit_1", "visit_2"):
            doctor = Doctor(await memory_of(SAID))
            await JSONSession(save_dir=str(tmp_path / "in")).save_session_state(name, doctor=doctor)

    asyncio.run(save())

    result = run(tmp_path, CONVERT, "--from", "agentscope", "in", "out.jsonl")

    assert (result.returncode, result.stderr) == (0, "")
    sessions = read(tmp_path / "out.jsonl")
    assert [session["session_id"] for session in sessions] == ["visit_1", "visit_2"]
    assert [contents(session) for session in sessions] == [CONTENTS] * 2
    assert summary_of(result)["left out: hint"] == "2"


def test_states_a_line_and_lists_of_messages_are_read(tmp_path):
    state = asyncio.run(memory_of(SAID)).state_dict()
    write(tmp_path / "states.jsonl", {"session_id": "a", "memory": state}, {"session_id": "b", "memory": state})
    (tmp_path / "list.json").write_text(json.dumps([message.to_dict() for message in SAID], indent=1))
    for name, ids in (("states.jsonl", ["a", "b"]), ("list.json", ["list"])):
        assert run(tmp_path, CONVERT, "--from", "agentscope", name, "out.jsonl", "--overwrite").returncode == 0
        sessions = read(tmp_path / "out.jsonl")
        assert [session["session_id"] for session in sessions] == ids
        assert all(contents(session) == CONTENTS for session in sessions)


def test_two_agents_of_one_session_are_one_dialogue_by_their_names():
    # Given a simulated patient and a doctor, both assistants to AgentScope, each with the other's messages and its own
    lines = [("patient", "a"), ("doctor", "b"), ("patient", "c")]
    said = [
        Msg(name, text, "assistant", timestamp=f"2026-03-01 10:00:0{second}.000")
        for second, (name, text) in enumerate(lines)
    ]
    ours, theirs = ([message.to_dict() for message in part] for part in (said[:2], said[1:]))
    value = {"doctor": {"memory": {"content": [[message, []] for message in theirs]}}, "patient": {"content": ours}}

    made = from_agentscope(Row("in", "in", value), Roles(user=frozenset({"patient"})))

    assert [(message["role"], message["content"]) for message in made.record.messages] == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]


def test_messages_one_a_line_are_told_to_be_put_together(tmp_path):
    write(tmp_path / "in.jsonl", *(message.to_dict() for message in SAID))
    result = run(tmp_path, CONVERT, "--from", "agentscope", "in.jsonl", "out.jsonl", "--strict")
    assert error_of(result) == "in.jsonl:1: is one message; put the messages of a session into one list"
