"""Makes a random Qwen2 model of some 400,000 parameters with a tokenizer and chat template of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

from tuner.learn_to_ask.prompt import info_extract_prompt, reward_prompt_med, rollout_prompt_med

SAMPLE_LOGS = Path(__file__).parents[2] / "tuner/learn_to_ask/sample_data/train_origin.jsonl"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
END, START, PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"


def make_tiny_model(folder: Path, *, context: int = 2048) -> Path:
    """Writes the model to `folder` and returns it; the same every time."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    set_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=0.2,  # wide enough for the most likely token to be clear of the others
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, chat_template=CHAT_TEMPLATE
    )


def _texts() -> Iterator[str]:
    # Each prompt counts as often as in a run, so that it comes out about as short as with a real tokenizer.
    yield from (rollout_prompt_med, reward_prompt_med, info_extract_prompt) * 20
    with SAMPLE_LOGS.open(encoding="utf-8") as file:
        for line in file:
            yield from (message["content"] for message in json.loads(line)["messages"])
