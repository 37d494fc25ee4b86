"""Builds what the tests train and grade with: the sample data, the quickstart's tiny policy, and a tiny grader.

The grader is a Qwen2 of a million parameters that imitates the offline rules, so that a real engine answers in the
form that is asked for; which scores it holds matters less.
"""

import random
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.engines.offline import grade_answer
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.prompt import grading_messages, reward_prompt_med
from tuner.learn_to_ask.quickstart.base_policy import (
    _CHAT_TEMPLATE,
    END,
    BasePolicyConfig,
    build_base_policy,
    imitated_response,
)

RECIPE = Path(__file__).resolve().parents[2] / "tuner" / "learn_to_ask"
STEPS = 120  # of imitation, for each of the two


def build(folder: Path) -> None:
    """Writes `data/`, `policy/` and `grader/` into a folder."""
    for split in ("train", "test"):
        processed, built = folder / "data_raw" / f"{split}_processed.jsonl", folder / "data" / f"{split}.jsonl"
        origin = RECIPE / "sample_data" / f"{split}_origin.jsonl"
        for script, *flags in (
            ("1_info_extract_pipeline.py", f"--input_file={origin}", f"--output_file={processed}", "--engine=offline"),
            ("2_build_dataset.py", f"--input_file={processed}", f"--output_file={built}"),
        ):
            subprocess.run([sys.executable, RECIPE / "data_prepare" / script, *flags], check=True)
    tasks = list(read_jsonl(folder / "data" / "train.jsonl", Task, unique_key="cid", report=ReadReport()))
    config = BasePolicyConfig(steps=STEPS)
    build_base_policy(folder / "policy", tasks, default_domain(), config, seed=0)
    build_grader(folder / "grader", tasks, config)


def build_grader(folder: Path, tasks: list[Task], config: BasePolicyConfig) -> None:
    """Trains the grader on gradings of the offline rules and saves it."""
    rng, domain = random.Random(1), default_domain()
    torch.manual_seed(1)
    chats = [
        grading_messages(task.messages, imitated_response(task, domain, config.doctor, rng), task.info_truth)
        for task in tasks
        if task.decision_truth == "continue"
    ]
    pairs = [(chat, grade_answer(chat, domain)) for chat in chats]
    tokenizer = _tokenizer([chat[1]["content"] for chat, _ in pairs] + [reply for _, reply in pairs])
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype=torch.float32,
        )
    )
    rows = [(_prompt_ids(tokenizer, chat), tokenizer(reply + END)["input_ids"]) for chat, reply in pairs]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    pad = tokenizer.pad_token_id
    for _ in range(STEPS):
        batch = rng.sample(rows, 16)
        width = max(len(prompt) + len(reply) for prompt, reply in batch)
        ids = torch.tensor([p + r + [pad] * (width - len(p) - len(r)) for p, r in batch])
        labels = torch.tensor([[-100] * len(p) + r + [-100] * (width - len(p) - len(r)) for p, r in batch])
        loss = model(input_ids=ids, attention_mask=(ids != pad).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every line of the grading prompt is one token, so that prompts stay short."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<|endoftext|>", "<|im_start|>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*texts, *["system\nuser\nassistant\n"] * 100], trainer)
    bpe.add_tokens([line for line in reward_prompt_med.splitlines() if line and "{" not in line])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=_CHAT_TEMPLATE,
    )


def _prompt_ids(tokenizer: PreTrainedTokenizerFast, chat: list[dict[str, str]]) -> list[int]:
    """The tokens of a conversation up to the answer."""
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


if __name__ == "__main__":
    build(Path(sys.argv[1]))
