"""The warm start: a pretrained chat model imitates the doctor; only responses and the last layers count."""

import random
from types import SimpleNamespace

import pytest
import torch
from medical import MEDICAL
from transformers import AutoModelForCausalLM, AutoTokenizer

from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.transformers import TransformersEngine, best_device
from tuner.learn_to_ask.prompt import rollout_messages
from tuner.learn_to_ask.quickstart.base_policy import BasePolicyConfig, ImitatedDoctor, build_base_policy
from tuner.learn_to_ask.quickstart.warm_start import WarmStartConfig, response_loss, warm_start

TASKS = [
    Task(
        cid=f"{number}_0",
        session_id=str(number),
        diagn="Acute Gastroenteritis",
        messages=[{"role": "user", "content": f"i have been ill for {number} days"}],
        decision_truth="stop" if number % 3 else "continue",
        info_truth="" if number % 3 else "symptom: vomiting",
    )
    for number in range(24)
]
ALWAYS_STOPS = ImitatedDoctor(stop_when_done=1.0, stop_too_early=1.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A chat model that has learned a little."""
    folder = tmp_path_factory.mktemp("source")
    build_base_policy(folder, TASKS, MEDICAL, BasePolicyConfig(steps=40, hidden_size=64), seed=0)
    return folder


def stop_loss(folder):
    """Mean loss a token of stopping."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    rows = []
    for task in TASKS[:8]:
        chat = rollout_messages(task.messages, "Ra+Rs")
        prompt = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))["input_ids"]
        rows.append((prompt, tokenizer("<stop />")["input_ids"]))
    with torch.inference_mode():
        return response_loss(model, rows, end=tokenizer.eos_token_id).item()


def stops(folder):
    """Whether stopping is the likeliest answer to a task where it is right."""
    engine = TransformersEngine(str(folder), batch_size=1, seed=0)
    request = Request(0, rollout_messages(TASKS[1].messages, "Ra+Rs"))
    [reply] = engine.generate([request], Sampling(temperature=0.0, top_p=1.0, max_tokens=8))
    engine.close()
    return reply.texts == ["<stop />"]


def test_the_loss_of_what_is_imitated_falls_and_the_first_layers_stay(source, tmp_path):
    # Given a doctor who always stops, and a model whose embeddings stay as they are, too short after so little training
    # for a loss near 0: stopping becomes the likeliest answer all the same.
    config = WarmStartConfig(doctor=ALWAYS_STOPS, steps=60, batch_size=4, learning_rate=1e-3, trained_layers=0.5)
    assert not stops(source)

    last = warm_start(tmp_path / "warm", TASKS, MEDICAL, str(source), config, seed=0)

    assert last < stop_loss(source) - 0.1
    assert stop_loss(tmp_path / "warm") < stop_loss(source) - 0.1
    assert stops(tmp_path / "warm")
    layers = [AutoModelForCausalLM.from_pretrained(folder).model.layers for folder in (source, tmp_path / "warm")]
    assert torch.equal(layers[0][1].mlp.up_proj.weight, layers[1][1].mlp.up_proj.weight)
    assert not torch.equal(layers[0][2].mlp.up_proj.weight, layers[1][2].mlp.up_proj.weight)
    assert not list(tmp_path.glob("*.partial"))


def test_only_the_response_and_its_end_token_count_for_the_loss(source):
    rows = [([5, 6, 7], [8]), ([5], [8, 9])]
    model = AutoModelForCausalLM.from_pretrained(source).eval()

    # One row after the other, without padding: the mean over the five tokens of both responses.
    losses = []
    with torch.inference_mode():
        for prompt, response in rows:
            ids = [*prompt, *response, 2]
            logits = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
            losses += [-logits[place - 1, ids[place]].item() for place in range(len(prompt), len(ids))]
        found = response_loss(model, rows, end=2).item()

    assert found == pytest.approx(sum(losses) / 5, rel=1e-4)


class ModelElsewhere:
    """Says nothing about any token, on a device without memory that stands for a GPU."""

    device = torch.device("meta")

    def __call__(self, *, logits_to_keep, **inputs):
        assert {tensor.device for tensor in inputs.values()} == {self.device}
        return SimpleNamespace(logits=torch.zeros(len(inputs["input_ids"]), logits_to_keep, 16, device=self.device))


def test_the_loss_is_computed_where_the_model_is():
    loss = response_loss(ModelElsewhere(), [([5, 6, 7], [8]), ([5], [8, 9])], end=2)

    assert loss.device == ModelElsewhere.device


@pytest.mark.parametrize(("present", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_model_computes_on_a_gpu_where_there_is_one(monkeypatch, present, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)

    assert best_device() == device


def test_an_interrupted_warm_start_leaves_no_model(source, tmp_path, monkeypatch):
    monkeypatch.setattr(random.Random, "sample", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))

    with pytest.raises(KeyboardInterrupt):
        warm_start(tmp_path / "warm", TASKS, MEDICAL, str(source), WarmStartConfig(), seed=0)

    assert not (tmp_path / "warm").exists()
