"""All prompts: rollout, grading and extraction, and how a dialogue is shown to a model (spec section 5)."""

import json
import re
from collections.abc import Sequence

from tuner.learn_to_ask.core.domain import Domain, Rubric
from tuner.learn_to_ask.core.records import Message
from tuner.learn_to_ask.core.reward import TrainMode
from tuner.learn_to_ask.domains import default_domain

_GRADER_TAG = re.compile(r"<(\s*/?\s*(?:think|format_score|content_score|teaches)\s*/?\s*)>", re.IGNORECASE)
_PUBLISHED = ("rollout_prompt_med", "rollout_prompt_med_Ra", "reward_prompt_med", "info_extract_prompt")


def __getattr__(name: str) -> str:
    """The medical prompts under their published names, made when they are asked for."""
    if name not in _PUBLISHED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    medical = default_domain()
    if name == "reward_prompt_med":
        return reward_prompt(medical)
    if name == "info_extract_prompt":
        return extraction_prompt(medical)
    return rollout_prompt("Ra" if name.endswith("Ra") else "Ra+Rs", medical)


def rollout_prompt(train_mode: TrainMode, domain: Domain | None = None) -> str:
    """The policy's system prompt; without the stop rule where only questions are trained (`Ra`).

    Args:
        train_mode: What is trained.
        domain: Its texts, here and below; the medical one where none is given.
    """
    domain = domain or default_domain()
    texts = domain.policy
    return domain.fill("\n".join([texts.task, texts.question, *([] if train_mode == "Ra" else [texts.stop])]))


def reward_prompt(domain: Domain) -> str:
    """The grader's system prompt, with `{info_truth}` where the reference information belongs."""
    texts = domain.grading
    parts = {"format_score": texts.format, "content_score": texts.content}
    rubrics = [f"{name} - {rubric.question}\n{_levels(rubric)}" for name, rubric in parts.items()]
    tags = [f"<{name}>{domain.choices(_scores(rubric))}</{name}>" for name, rubric in parts.items()]
    return "\n".join(
        [
            f"{domain.fill(texts.task)}\n",
            f"{domain.fill(texts.reference)}\n{{info_truth}}\n",
            f"{domain.fill(rubrics[0])}\n{domain.fill(rubrics[1])}\n",
            domain.fill(texts.reply),
            f"<think>{texts.reasoning}</think>",
            *tags,
        ]
    )


def _scores(rubric: Rubric) -> list[str]:
    """The scores of a rubric as a grader is to write them."""
    return [str(level.score) for level in rubric.levels]


def _levels(rubric: Rubric) -> str:
    """A line for each level of a rubric."""
    return "\n".join(f"  {level.score}  {level.when}" for level in rubric.levels)


def extraction_prompt(domain: Domain) -> str:
    """The extractor's system prompt."""
    texts = domain.extraction
    rules = "\n".join(f"- {rule}" for rule in texts.rules)
    example = json.dumps(texts.example, ensure_ascii=False)
    return domain.fill(f"{texts.task}\n\n{texts.wanted}\n\n{rules}\n\n{texts.answer}\n") + example


def judge_prompt(domain: Domain) -> str:
    """The system prompt of a judge of whole sessions."""
    texts = domain.curation
    rubric = f"teaches - {texts.teaches.question}\n{_levels(texts.teaches)}"
    scores = domain.choices(_scores(texts.teaches))
    reply = f"{texts.reply}\n<think>{domain.grading.reasoning}</think>\n<teaches>{scores}</teaches>"
    return domain.fill(f"{texts.task}\n\n{rubric}\n\n{reply}")


def choosing_prompt(domain: Domain) -> str:
    """The system prompt of a model that answers as the user of a logged session."""
    return domain.fill(f"{domain.answering.task}\n\n{domain.answering.reply}")


def dialogue_lines(messages: Sequence[Message], domain: Domain | None = None) -> str:
    """Shows a dialogue as `patient: …` / `doctor: …`, one line a message.

    White space inside a message becomes single spaces, so that no message can pass for two, and the
    grader's own tags are put in square brackets, so that a model which quotes a message cannot be read as
    having graded it.
    """
    speakers = (domain or default_domain()).speakers
    names = {"user": speakers.user, "assistant": speakers.assistant}
    return "\n".join(f"{names[message['role']]}: {_one_line(message['content'])}" for message in messages)


def _one_line(content: str) -> str:
    """A message on one line, its grader tags in square brackets."""
    return _GRADER_TAG.sub(r"[\1]", " ".join(content.split()))


def grading_messages(
    messages: Sequence[Message], response: str, info_truth: str, domain: Domain | None = None
) -> list[dict[str, str]]:
    """The chat that asks a grader to score one response.

    Args:
        messages: The context the response answers to.
        response: The policy's question.
        info_truth: The reference information of the task.
        domain: Its texts.
    """
    domain = domain or default_domain()
    graded: Message = {"role": "assistant", "content": response}
    return [
        {"role": "system", "content": reward_prompt(domain).replace("{info_truth}", _one_line(info_truth))},
        {"role": "user", "content": dialogue_lines([*messages, graded], domain)},
    ]


def extraction_messages(future: Sequence[Message], domain: Domain | None = None) -> list[dict[str, str]]:
    """The chat that asks for the information in a sample's future."""
    domain = domain or default_domain()
    return [
        {"role": "system", "content": extraction_prompt(domain)},
        {"role": "user", "content": dialogue_lines(future, domain)},
    ]


def judging_messages(messages: Sequence[Message], domain: Domain) -> list[dict[str, str]]:
    """The chat that asks a judge whether a session teaches."""
    return [
        {"role": "system", "content": judge_prompt(domain)},
        {"role": "user", "content": dialogue_lines(messages, domain)},
    ]


def choosing_messages(notes: Sequence[str], question: str, domain: Domain) -> list[dict[str, str]]:
    """The chat that asks which of a user's notes a question is about, by their numbers from 1."""
    listed = [f"{number}. {_one_line(note)}" for number, note in enumerate(notes, start=1)]
    asked = f"{domain.speakers.assistant}: {_one_line(question)}"
    return [
        {"role": "system", "content": choosing_prompt(domain)},
        {"role": "user", "content": "\n".join([*listed, "", asked])},
    ]


def rollout_messages(
    messages: Sequence[Message], train_mode: TrainMode, domain: Domain | None = None
) -> list[dict[str, str]]:
    """The chat that asks the policy for its next message."""
    return [
        {"role": "system", "content": rollout_prompt(train_mode, domain)},
        *({"role": message["role"], "content": message["content"]} for message in messages),
    ]


def shown_prompts(domain: Domain) -> str:
    """Every prompt of a domain, one below the other, for someone who writes its file."""
    parts = {
        "policy": rollout_prompt("Ra+Rs", domain),
        "grader": reward_prompt(domain),
        "extractor": extraction_prompt(domain),
        "judge of sessions": judge_prompt(domain),
        "user of a logged session": choosing_prompt(domain),
    }
    return "\n\n".join(f"--- {role} ---\n{text}" for role, text in parts.items())
