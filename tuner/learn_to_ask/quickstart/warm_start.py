"""Warms a pretrained chat model up to the task: it imitates a doctor who asks well enough and often stops too late."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.engines.chat import ChatEncoder
from tuner.learn_to_ask.engines.transformers import best_device
from tuner.learn_to_ask.prompt import rollout_messages
from tuner.learn_to_ask.quickstart.base_policy import ImitatedDoctor, imitate, imitated_response

_IGNORED = -100  # the label of a token that the loss leaves out


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStartConfig:
    """Every number of the warm start.

    Attributes:
        doctor: Whom it imitates. Group rewards tell nothing where no rollout of a group stops, so this one stops in
            half of the cases where it should.
        steps: Imitation steps.
        batch_size: Examples a step.
        learning_rate: Peak of a one-cycle schedule.
        trained_layers: How many of the last layers learn, as a share; the rest costs no backward pass.
    """

    doctor: ImitatedDoctor = field(default=ImitatedDoctor(stop_when_done=0.50, stop_too_early=0.06))
    steps: int = 48
    batch_size: int = 8
    learning_rate: float = 3e-4
    trained_layers: float = 0.4


def warm_start(
    folder: Path, tasks: Sequence[Task], domain: Domain, source: str, config: WarmStartConfig, *, seed: int
) -> float:
    """Trains a pretrained model on what the imitated doctor says to the train split, and saves it.

    Only the response counts for the loss: the model knows how to read. It learns on a GPU where there is one.

    Args:
        folder: Where to; a complete Hugging Face model afterwards, or nothing.
        tasks: The train split.
        domain: Theirs, with the vocabulary of the sample logs.
        source: A model's folder or hub id.
        config: Every number.
        seed: Of the examples and their order.

    Returns:
        The mean loss a token over the last tenth of the steps.

    Raises:
        UserError: When the model has no chat template that takes a conversation.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    encoder = ChatEncoder(tokenizer, source)
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).to(best_device())
    learning = _freeze_first_layers(model, config.trained_layers)
    prompts = [(encoder.encode(rollout_messages(task.messages, "Ra+Rs", domain))[0], task) for task in tasks]

    def next_loss() -> Any:
        rows = [
            (
                prompt,
                tokenizer(imitated_response(task, domain, config.doctor, rng), add_special_tokens=False)["input_ids"],
            )
            for prompt, task in rng.sample(prompts, config.batch_size)
        ]
        return response_loss(model, rows, end=tokenizer.eos_token_id)

    model.train()
    losses = imitate(learning, next_loss, steps=config.steps, learning_rate=config.learning_rate)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)
    last = losses[-max(1, len(losses) // 10) :]
    return float(sum(last) / len(last))


def response_loss(model: Any, rows: Sequence[tuple[list[int], list[int]]], *, end: int) -> Any:
    """The mean loss a token of responses to prompts.

    Padded on the left, so that all responses end in the last column, and the probabilities of 50,000 words are computed
    for these columns alone: a third of the work.

    Args:
        model: A causal language model; the loss is computed where it is.
        rows: The tokens of a prompt and of the response to it.
        end: The end token, which belongs to the response.
    """
    import torch

    width = max(len(prompt) + len(response) + 1 for prompt, response in rows)
    kept = max(len(response) + 1 for _, response in rows)
    ids, mask, labels = [], [], []
    for prompt, response in rows:
        said = [*response, end]
        padding = width - len(prompt) - len(said)
        ids.append([end] * padding + prompt + said)
        mask.append([0] * padding + [1] * (width - padding))
        labels.append([_IGNORED] * (kept - len(said)) + said)
    attention = torch.tensor(mask, device=model.device)
    output = model(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=attention,
        position_ids=(attention.cumsum(dim=1) - 1).clamp(min=0),
        logits_to_keep=kept + 1,
    )
    logits = output.logits[:, :-1].flatten(end_dim=1)
    wanted = torch.tensor(labels, device=model.device).flatten()
    return torch.nn.functional.cross_entropy(logits, wanted, ignore_index=_IGNORED)


def _freeze_first_layers(model: Any, trained: float) -> list[Any]:
    """Lets only the last layers learn; returns their parameters."""
    layers = model.get_decoder().layers
    first = len(layers) - max(1, round(trained * len(layers)))
    model.requires_grad_(False)
    for layer in layers[first:]:
        layer.requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
