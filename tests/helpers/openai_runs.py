"""Conversations for the `openai` engine and what comes back for them."""

from pathlib import Path

from tuner.learn_to_ask.engines.base import Request, Sampling

KEY = "sk-very-secret-0123456789"


SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=64, repetition_penalty=1.1)


REPOSITORY = Path(__file__).resolve().parents[2]


def conversations(count, *, start=0):
    """Requests whose last messages are `q0`, `q1`, …"""
    for index in range(start, start + count):
        yield Request(index, [{"role": "system", "content": "s"}, {"role": "user", "content": f"q{index}"}])


def answers(engine, count, sampling=SAMPLING):
    """The replies, by key."""
    return {reply.key: reply for reply in engine.generate(conversations(count), sampling)}
