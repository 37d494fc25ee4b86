"""The GGUF file of a small Llama becomes a Hugging Face model: same tokens, same weights, an end token that ends."""

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from run_scripts import evaluate, extract

from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.chat import ChatEncoder
from tuner.learn_to_ask.engines.transformers import TransformersEngine
from tuner.learn_to_ask.quickstart.pipeline import PRETRAINED
from tuner.learn_to_ask.quickstart.smollm2 import convert_gguf, make_smollm2, read_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello", "c o", "u g", "co ug", "coug h", "Ġ cough", "1 2"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS, HEADS, KV_HEADS, HIDDEN, MLP = 2, 4, 2, 32, 64


def byte_letters():
    """GPT-2's letters for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}


LETTERS = byte_letters()
TOKENS = [*SPECIAL, *LETTERS.values(), *(merge.replace(" ", "") for merge in MERGES)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A GGUF file as llama.cpp's converter writes it, random weights."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        kv = HIDDEN // HEADS * KV_HEADS
        shapes |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN),
                "attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (MLP, HIDDEN),
                "ffn_up": (MLP, HIDDEN), "ffn_down": (HIDDEN, MLP),
            }.items()
        }  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def tokenizer(file):
    return read_tokenizer(file)


def slow_ids(text):
    """Byte-pair encoding as its definition says: the earliest merge first, over one word at a time."""
    ids = []
    for word in words(text):
        parts = [LETTERS[byte] for byte in word.encode()]
        for merge in MERGES:
            left, right = merge.split(" ")
            position = 0
            while position < len(parts) - 1:
                if (parts[position], parts[position + 1]) == (left, right):
                    parts[position : position + 2] = [left + right]
                position += 1
        ids += [TOKENS.index(part) for part in parts]
    return ids


def words(text):
    """Single digits, and letters with the blank before them, for texts of small letters, digits and single blanks."""
    found = []
    for index, character in enumerate(text):
        starts = character.isdigit() or index == 0 or text[index - 1].isdigit() or character == " "
        if starts:
            found.append(character)
        else:
            found[-1] += character
    return found


@given(st.lists(st.sampled_from(["hello", "cough", "hell", "12", "7", "ugh"]), max_size=6).map(" ".join))
def test_ids_are_those_of_byte_pair_encoding_done_by_hand(tokenizer, text):
    assert tokenizer(text)["input_ids"] == slow_ids(text)


def test_a_reference_prompt_has_these_ids(tokenizer):
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello cough 12"}], tokenize=True, add_generation_prompt=True
    )
    start, end, newline = 1, 2, TOKENS.index("Ċ")
    letters = [TOKENS.index(letter) for letter in "user"]
    content = [TOKENS.index(token) for token in ("hello", "Ġcough", "Ġ", "1", "2")]  # single digits, no start token
    assistant = [TOKENS.index(letter) for letter in "assistant"]
    assert prompt == [start, *letters, newline, *content, end, newline, start, *assistant, newline]


def test_the_end_token_is_what_ends_an_answer_and_there_is_a_pad_token(tokenizer):
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    ChatEncoder(tokenizer, "model")
    assert tokenizer.decode([1, 2, TOKENS.index("hello")], skip_special_tokens=True) == "hello"


def test_the_model_has_the_weights_of_the_file(file, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    convert_gguf(file, tmp_path / "model")

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    weights = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in gguf.GGUFReader(file).tensors}
    torch.testing.assert_close(model.model.embed_tokens.weight.data, weights["token_embd.weight"])
    torch.testing.assert_close(model.model.layers[1].mlp.down_proj.weight.data, weights["blk.1.ffn_down.weight"])
    # llama.cpp interleaves what Hugging Face halves: row 2 i + j of a head is row i + j * half of it there.
    of_file = weights["blk.0.attn_k.weight"].reshape(KV_HEADS, HIDDEN // HEADS // 2, 2, HIDDEN)
    by_hand = torch.cat([of_file[:, :, 0], of_file[:, :, 1]], dim=1).reshape(-1, HIDDEN)
    torch.testing.assert_close(model.model.layers[0].self_attn.k_proj.weight.data, by_hand)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (model.config.eos_token_id, model.generation_config.eos_token_id, model.config.bos_token_id) == (2, 2, None)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").eos_token == "<|im_end|>"


@pytest.fixture(scope="module")
def smollm2():
    """The packaged model, converted once for all that use it."""
    make_smollm2(PRETRAINED)
    return PRETRAINED


@pytest.mark.slow
def test_the_packaged_model_answers_and_stops(smollm2):
    engine = TransformersEngine(str(smollm2), batch_size=1, seed=0)
    request = Request(0, [{"role": "user", "content": "What is the capital of France?"}])
    [reply] = engine.generate([request], Sampling(temperature=0.0, top_p=1.0, max_tokens=48))
    engine.close()
    assert "Paris" in reply.texts[0]
    assert not any(reply.cut_off)


@pytest.mark.slow
def test_what_it_extracts_cannot_be_read_and_that_is_said_with_an_example(smollm2, tmp_path):
    shutil.copy(EXAMPLES / "sessions.jsonl", tmp_path / "in.jsonl")

    done = extract(tmp_path, "--engine=transformers", f"--model_path={smollm2}", "--max_tokens=24", "--max_retries=0")

    assert done.returncode == 2
    assert "no request was answered" in done.stderr
    assert ", for example " in done.stderr
    assert not (tmp_path / "out.jsonl").exists()
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_it_grades_cannot_be_read_and_nothing_is_graded(smollm2, tmp_path):
    shutil.copy(EXAMPLES / "tasks.jsonl", tmp_path / "in.jsonl")
    shutil.copy(EXAMPLES / "rollouts.jsonl", tmp_path / "out.jsonl")

    done = evaluate(
        tmp_path, "--resume", "--rollout_repeat=2", "--grader_engine=transformers", f"--grader_model_path={smollm2}",
        "--grader_max_tokens=24", "--max_retries=0",
    )  # fmt: skip

    assert done.returncode == 2
    assert "no request was answered" in done.stderr
    assert ", for example " in done.stderr
    assert not (tmp_path / "eval.jsonl").exists()
