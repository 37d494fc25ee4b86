"""Builds the quickstart's base policy: a tiny Qwen3 taught by imitation to ask well enough and stop badly."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.cli import progress
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.engines.transformers import best_device
from tuner.learn_to_ask.prompt import rollout_messages, rollout_prompt
from tuner.learn_to_ask.sample_data.vocabulary import Attribute, Complaint, vocabulary_of

END = "<|im_end|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImitatedDoctor:
    """How often the doctor whom a policy imitates before its training is right.

    Attributes:
        stop_when_done: How often it stops where it should.
        stop_too_early: How often it stops where it should go on.
        ask_fitting: How often a question is about an open attribute of the complaint ...
        ask_related: ... about any attribute of the complaint; else about any complaint at all.
        two_questions: How often it asks two questions at once.
    """

    stop_when_done: float = 0.30
    stop_too_early: float = 0.06
    ask_fitting: float = 0.40
    ask_related: float = 0.35
    two_questions: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePolicyConfig:
    """Every number of the base policy.

    Attributes:
        hidden_size: Width of the model; with `layers` it makes the number of parameters.
        layers: Depth of the model.
        vocabulary_size: BPE tokens.
        steps: Imitation steps.
        batch_size: Examples a step.
        learning_rate: Peak of a one-cycle schedule.
        doctor: Whom it imitates.
    """

    hidden_size: int = 128
    layers: int = 4
    vocabulary_size: int = 1024
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 3e-3
    doctor: ImitatedDoctor = ImitatedDoctor()


def imitated_response(task: Task, domain: Domain, doctor: ImitatedDoctor, rng: random.Random) -> str:
    """What the imitated doctor says to a task: often not the best, sometimes right.

    Args:
        task: A task of the train split.
        domain: With the vocabulary of the sample logs.
        doctor: How often it is right.
        rng: Decides.
    """
    done = task.decision_truth == "stop"
    if rng.random() < (doctor.stop_when_done if done else doctor.stop_too_early):
        return domain.stop_token
    complaints = vocabulary_of(domain).complaints
    own = next(complaint for complaint in complaints if complaint.diagnosis == task.diagn)
    choice = rng.random()
    if choice < doctor.ask_fitting and not done:
        attributes: Sequence[Attribute] = open_attributes(own, task)
    elif choice < doctor.ask_fitting + doctor.ask_related:
        attributes = own.attributes
    else:
        attributes = rng.choice(complaints).attributes
    first = rng.choice(attributes)
    return question(domain, first, rng.choice(own.attributes) if rng.random() < doctor.two_questions else None)


def open_attributes(complaint: Complaint, task: Task) -> list[Attribute]:
    """The attributes that the task's reference information holds an answer to."""
    return [
        attribute
        for attribute in complaint.attributes
        if any(f"{attribute.field}: {term}" in task.info_truth for term in attribute.answers.values())
    ]


def question(domain: Domain, attribute: Attribute, second: Attribute | None = None) -> str:
    """One question with its choices; with a second attribute two questions."""
    mark, stop = ("？", "。") if domain.full_width else ("? ", ".")
    asked = "".join(f"{one.question[0].upper()}{one.question[1:]}{mark}" for one in (attribute, second) if one)
    choices = [f"{letter}) {term}" for letter, term in zip("ABC", attribute.answers.values(), strict=False)]
    return f"{asked}{domain.choices(choices)}{stop}"


def build_base_policy(
    folder: Path, tasks: Sequence[Task], domain: Domain, config: BasePolicyConfig, *, seed: int
) -> None:
    """Trains the tokenizer and the model on the train split and saves both as a Hugging Face model.

    On a GPU where there is one.

    Args:
        folder: Where to; a complete model afterwards.
        tasks: The train split.
        domain: Theirs, with the vocabulary of the sample logs.
        config: Every number.
        seed: Of the weights, the examples and their order.
    """
    import torch

    torch.manual_seed(seed)
    rng = random.Random(seed)
    chats = [(rollout_messages(task.messages, "Ra+Rs", domain), task) for task in tasks]
    tokenizer = _tokenizer(
        [message["content"] for chat, _ in chats for message in chat[1:]]
        + [imitated_response(task, domain, config.doctor, rng) for _, task in chats],
        rollout_prompt("Ra+Rs", domain),
        config.vocabulary_size,
    )
    prompts = [
        (tokenizer(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))["input_ids"], task)
        for chat, task in chats
    ]
    device = best_device()
    model = _model(config, tokenizer).to(device)
    model.train()
    imitate(
        list(model.parameters()),
        lambda: (
            model(**_batch(rng.sample(prompts, config.batch_size), tokenizer, domain, config, rng, device=device)).loss
        ),
        steps=config.steps,
        learning_rate=config.learning_rate,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def imitate(
    parameters: Sequence[Any], next_loss: Callable[[], Any], *, steps: int, learning_rate: float
) -> list[float]:
    """Takes imitation steps.

    Args:
        parameters: Those that learn.
        next_loss: Gives the loss of a fresh batch.
        steps: How many.
        learning_rate: Peak of a one-cycle schedule.

    Returns:
        The loss of every step.
    """
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    losses = []
    for _ in progress(range(steps), title="imitating", total=steps, unit="steps"):
        loss = next_loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def _tokenizer(texts: list[str], system_prompt: str, vocabulary_size: int) -> Any:
    """A byte-level BPE tokenizer with Qwen's chat tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", END]
    bpe.train_from_iterator(
        [*texts, *(["system\nuser\nassistant\n"] * 100)],
        trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    # The system prompt is the same in every chat: a token a line keeps the tiny model's context short.
    bpe.add_tokens(system_prompt.splitlines())
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=_CHAT_TEMPLATE,
    )


def _model(config: BasePolicyConfig, tokenizer: Any) -> Any:
    """A randomly initialised Qwen3 with tied embeddings."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=3 * config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=config.hidden_size // 4,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype=torch.float32,
        )
    )


def _batch(
    prompts: list[tuple[list[int], Task]],
    tokenizer: Any,
    domain: Domain,
    config: BasePolicyConfig,
    rng: random.Random,
    *,
    device: str,
) -> dict[str, Any]:
    """Prompts with freshly drawn responses; the dialogues are imitated too, they teach what belongs together."""
    import torch

    rows = [
        prompt + tokenizer(imitated_response(task, domain, config.doctor, rng) + END)["input_ids"]
        for prompt, task in prompts
    ]
    width = max(map(len, rows))
    columns = {
        "input_ids": [row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows],
        "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in rows],
        "labels": [row + [-100] * (width - len(row)) for row in rows],
    }
    return {name: torch.tensor(column, device=device) for name, column in columns.items()}
