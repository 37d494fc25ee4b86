"""LoRA adapters merged by the transformers engine, against weights that are changed by hand from the adapter's file."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tuner.learn_to_ask.engines.transformers import _merged
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.adapter_weights import changed_modules, module_names
from tuner.learn_to_ask.models.model_source import Adapter

RANK, ALPHA = 2, 6
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
SHAPE = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=8)),
}


@pytest.fixture(params=MODELS)
def base(request, tmp_path):
    """The folder of a random model."""
    torch.manual_seed(0)
    of_class, config = MODELS[request.param]
    of_class(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def lora_weights(base, targets):
    """Random matrices for every module whose name ends in one of the targets."""
    model = AutoModelForCausalLM.from_pretrained(base)
    weights = {}
    for name, module in model.named_modules():
        if name.endswith(targets):
            weights[f"base_model.model.{name}.lora_A.weight"] = torch.randn(RANK, module.in_features)
            weights[f"base_model.model.{name}.lora_B.weight"] = torch.randn(module.out_features, RANK)
    return weights


def adapter(folder, base, weights, **config):
    """An adapter's folder; `target_modules` is left open, as SkyRL writes it."""
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    known = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "base_model_name_or_path": str(base)}
    known |= {"target_modules": None, "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(known | config))
    return Adapter(folder=str(folder), rank=RANK, tokenizer=False)


def logits(model):
    with torch.inference_mode():
        return model(torch.tensor([[1, 5, 7, 30]])).logits


@pytest.mark.parametrize("targets", [ATTENTION, MLP, ATTENTION + MLP, ("layers.1.self_attn.q_proj",)])
@pytest.mark.parametrize("named", [False, True])
def test_merged_logits_are_those_of_weights_changed_by_hand(base, tmp_path, targets, named):
    # Given: W + alpha / r * B A for every pair of matrices in the file.
    weights = lora_weights(base, targets)
    by_hand = AutoModelForCausalLM.from_pretrained(base)
    modules = dict(by_hand.named_modules())
    for key in [key for key in weights if ".lora_A." in key]:
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        change = ALPHA / RANK * weights[key.replace("lora_A", "lora_B")] @ weights[key]
        modules[name].weight.data += change

    config = {"target_modules": list(targets)} if named else {}
    merged = _merged(AutoModelForCausalLM.from_pretrained(base), adapter(tmp_path / "a", base, weights, **config))

    torch.testing.assert_close(logits(merged), logits(by_hand), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-2)


def test_the_modules_of_a_model_are_known_without_its_weights(base):
    loaded = [name for name, _ in AutoModelForCausalLM.from_pretrained(base).named_modules()]

    assert module_names(str(base), trust_remote_code=False) == loaded


@pytest.mark.parametrize(
    ("change", "config", "named"),
    [
        (
            {"model.layers.9.mlp.up_proj.lora_A.weight": 0},
            {},
            r"has not: model\.layers\.9\.mlp\.up_proj",
        ),
        (
            {"model.layers.0.self_attn.q_proj.lora_B.weight": None},
            {},
            "one of two matrices for: model",
        ),
        ({}, {"target_modules": ["q_proj", "up_proj"]}, r"no weights for: model\.layers\.0\.mlp\.up_proj, model"),
        ({}, {"target_modules": r".*\.(q_proj|o_proj)"}, r"no weights for: model\.layers\.0\.self_attn\.o_proj"),
    ],
)
def test_what_does_not_fit_is_named(base, tmp_path, change, config, named):
    weights = lora_weights(base, ("q_proj",))
    for place, value in change.items():
        key = f"base_model.model.{place}"
        weights = {name: weight for name, weight in weights.items() if name != key}
        if value is not None:
            weights[key] = torch.zeros(RANK, 16)
    names = module_names(str(base), trust_remote_code=False)

    with pytest.raises(UserError, match=named):
        changed_modules(adapter(tmp_path / "a", base, weights, **config), names)


def test_a_file_without_lora_weights_is_named(base, tmp_path):
    with pytest.raises(UserError, match="no LoRA weights"):
        changed_modules(adapter(tmp_path / "a", base, {"x": torch.zeros(1)}), ["model"])
