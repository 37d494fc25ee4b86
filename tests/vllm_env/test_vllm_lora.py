"""A LoRA adapter on a real vLLM: the answers are those of the base model with the adapter merged by hand."""

import json
from pathlib import Path

import pytest

pytest.importorskip("vllm.entrypoints.llm")  # `vllm` alone could be this folder

from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.transformers import TransformersEngine
from tuner.learn_to_ask.engines.vllm import VLLMEngine
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_source import find_model
from tuner.learn_to_ask.prompt import rollout_messages

RANK, ALPHA = 4, 8
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=12)
REQUESTS = [
    Request(key, rollout_messages([{"role": "user", "content": f"My throat has hurt for {key} days"}], "Ra"))
    for key in range(4)
]


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an adapter on two matrices of each layer, and beside them the model it makes."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    base = Qwen2ForCausalLM.from_pretrained(model, dtype=torch.float32)
    weights = dict(base.named_parameters())
    generator = torch.Generator().manual_seed(3)
    changes = {}
    for name, weight in weights.items():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            down = torch.randn(RANK, weight.shape[1], generator=generator) * 0.3
            up = torch.randn(weight.shape[0], RANK, generator=generator) * 0.3
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            changes |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            weight.data += ALPHA / RANK * up @ down
    save_file(changes, folder / "adapter_model.safetensors")
    config = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    config |= {"peft_type": "LORA", "base_model_name_or_path": str(model), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    base.save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder / "merged")
    return folder


def answers(engine: VLLMEngine | TransformersEngine) -> dict[int, list[str]]:
    try:
        return {reply.key: reply.texts for reply in engine.generate(REQUESTS, GREEDY)}
    finally:
        engine.close()


def test_requests_are_answered_with_the_adapter(model, adapter):
    source = find_model(str(adapter), flag="--eval_model_path")
    engine = VLLMEngine(
        source.model, seed=0, max_model_len=512, dtype="float32", enforce_eager=True, adapter=source.adapter
    )
    by_hand = answers(TransformersEngine(str(adapter / "merged"), batch_size=4, seed=0))
    base = answers(TransformersEngine(str(model), batch_size=4, seed=0))
    assert answers(engine) == by_hand != base


def changed_copy(adapter: Path, folder: Path, **change: object) -> Path:
    """The adapter with another configuration."""
    for file in adapter.glob("adapter_model.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((adapter / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    return folder


def test_the_weights_decide_where_the_target_modules_are_left_open(adapter, tmp_path):
    source = find_model(str(changed_copy(adapter, tmp_path, target_modules=None)), flag="--eval_model_path")
    engine = VLLMEngine(
        source.model, seed=0, max_model_len=512, dtype="float32", enforce_eager=True, adapter=source.adapter
    )
    by_hand = answers(TransformersEngine(str(adapter / "merged"), batch_size=4, seed=0))
    assert answers(engine) == by_hand


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"r": 1024}, "no rank above 512"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "v_proj", "up_proj"]}, r"no weights for: model.layers.0.mlp.up_proj"),
    ],
)
def test_an_adapter_that_vllm_cannot_use_is_refused_with_the_reason(model, adapter, tmp_path, change, named):
    source = find_model(str(changed_copy(adapter, tmp_path, **change)), flag="--eval_model_path")
    with pytest.raises(UserError, match=named):
        VLLMEngine(source.model, seed=0, max_model_len=512, dtype="float32", enforce_eager=True, adapter=source.adapter)
