"""The `transformers` engine: any local or hub model, on a GPU or the CPU, in batches."""

import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.engines.base import PROMPT_TOO_LONG, Applied, Reply, Request, Sampling, as_asked
from tuner.learn_to_ask.engines.chat import ChatEncoder, tell_fitting
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.adapter_weights import changed_modules
from tuner.learn_to_ask.models.model_source import Adapter

# Prompts are sorted by length within this many batches, so that a batch holds little padding.
_SORTED_BATCHES = 8
_REASON_LENGTH = 300


class TransformersEngine:
    """Answers conversations with `transformers.generate`."""

    def __init__(
        self,
        model_path: str,
        *,
        batch_size: int,
        seed: int,
        adapter: Adapter | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Loads the model, to the GPU when there is one.

        Args:
            model_path: A local folder or a hub id.
            batch_size: Conversations answered at a time; each takes memory for `Sampling.n` answers.
            seed: Makes the answers reproducible on the same machine.
            adapter: A LoRA adapter to merge into the model.
            trust_remote_code: Whether to run the code that the model brings along.

        Raises:
            UserError: When there is no such model, it takes no conversation, or the adapter does not fit it.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        require_model(model_path)
        try:
            tokenizer_path = adapter.folder if adapter and adapter.tokenizer else model_path
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                tokenizer_path, padding_side="left", trust_remote_code=trust_remote_code
            )
            self._encoder = ChatEncoder(self._tokenizer, model_path)
            self._device = best_device()
            dtype = "auto" if self._device == "cuda" else torch.float32
            model: Any = AutoModelForCausalLM.from_pretrained(
                model_path, dtype=dtype, trust_remote_code=trust_remote_code
            )
            self._model = (_merged(model, adapter) if adapter else model).to(self._device).eval()
        except (OSError, ValueError) as error:
            raise UserError(f"model {model_path}: cannot be loaded: {_load_problem(error)}") from error
        tell_fitting(self._encoder.fitting, model_path)
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        torch.manual_seed(seed)
        self.description = f"transformers:{model_path}"
        self._batch_size = batch_size
        self._shortened: set[int] = set()

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the replies batch by batch, the batches sorted by prompt length."""
        limit = self._prompt_limit(sampling.max_tokens)
        stream = iter(requests)
        while window := list(islice(stream, self._batch_size * _SORTED_BATCHES)):
            prompts = []
            for request in window:
                ids, shortened = self._encoder.encode(request.messages, max_prompt_tokens=limit)
                if shortened:
                    self._shortened.add(request.key)
                if limit is not None and len(ids) > limit:
                    yield Reply(request.key, [], error=PROMPT_TOO_LONG, final=True)
                else:
                    prompts.append((request.key, ids))
            prompts.sort(key=lambda prompt: len(prompt[1]))
            for start in range(0, len(prompts), self._batch_size):
                yield from self._answer(prompts[start : start + self._batch_size], sampling)

    def applied(self, sampling: Sampling) -> Applied:
        """All of it."""
        return as_asked(sampling)

    def summary(self) -> list[tuple[str, object]]:
        """How many prompts lost their oldest turns."""
        return [("prompts shortened", len(self._shortened))]

    def close(self) -> None:
        """Frees the model."""
        import torch

        del self._model
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _prompt_limit(self, max_tokens: int) -> int | None:
        """The longest prompt that leaves room for the answer; `None` for a model without a longest context.

        Raises:
            UserError: When none does.
        """
        config = self._model.config.get_text_config()
        context: int | None = getattr(config, "max_position_embeddings", None)
        if context is None:
            return None
        if max_tokens >= context:
            raise UserError(
                f"--max_tokens {max_tokens} leaves no room for a prompt in the model's context of {context}: lower it"
            )
        return context - max_tokens

    def _answer(self, prompts: list[tuple[int, list[int]]], sampling: Sampling) -> Iterator[Reply]:
        """Answers one batch."""
        import torch

        inputs = self._tokenizer.pad({"input_ids": [ids for _, ids in prompts]}, return_tensors="pt").to(self._device)
        choice = (
            {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if sampling.temperature else {}
        )
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                do_sample=bool(choice),
                **choice,
                repetition_penalty=sampling.repetition_penalty,
                max_new_tokens=sampling.max_tokens,
                num_return_sequences=sampling.n,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        answers = output[:, inputs["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        lengths = (answers != self._tokenizer.pad_token_id).sum(dim=1).tolist()
        ended = torch.isin(answers, torch.tensor(self._end_tokens(), device=answers.device)).any(dim=1).tolist()
        for index, (key, ids) in enumerate(prompts):
            own = slice(index * sampling.n, (index + 1) * sampling.n)
            cut_off = tuple(not end and answers.shape[1] >= sampling.max_tokens for end in ended[own])
            yield Reply(key, texts[own], len(ids), sum(lengths[own]), cut_off=cut_off)

    def _end_tokens(self) -> list[int]:
        """The tokens that end an answer."""
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return [token for token in {*ends, self._tokenizer.eos_token_id} if token is not None]


def best_device() -> str:
    """Where PyTorch computes: `cuda` where it sees a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _merged(model: Any, adapter: Adapter) -> Any:
    """The model with the adapter's changes added to its weights.

    Raises:
        UserError: When the adapter does not fit the model.
    """
    from peft import LoraConfig, PeftModel

    modules = changed_modules(adapter, (name for name, _ in model.named_modules()))
    try:
        # peft only warns of weights that the adapter's file lacks, and leaves them at random.
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            config = LoraConfig.from_pretrained(adapter.folder)
            config.target_modules = set(modules)
            merged = PeftModel.from_pretrained(model, adapter.folder, config=config)
            return merged.merge_and_unload()
    except (RuntimeError, KeyError, UserWarning) as error:
        reason = str(error).strip().splitlines()[0][:_REASON_LENGTH]
        raise UserError(f"adapter {adapter.folder}: does not fit its base model: {reason}") from error


def require_model(model_path: str) -> None:
    """Tells a local folder that is no model from a hub id.

    Raises:
        UserError: When the path looks local and holds no model.
    """
    path = Path(model_path)
    looks_local = path.is_absolute() or model_path.startswith(".") or model_path.count("/") > 1 or path.exists()
    if looks_local and not (path / "config.json").is_file():
        raise UserError(f"model {model_path}: no such model folder (a config.json is looked for)")


def require_template(model_path: str, adapter: Adapter | None, trust_remote_code: bool) -> None:
    """Finds out before minutes of loading whether the model takes a conversation.

    Raises:
        UserError: When it does not.
    """
    from transformers import AutoTokenizer

    path = adapter.folder if adapter and adapter.tokenizer else model_path
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"model {model_path}: its tokenizer cannot be loaded: {_load_problem(error)}") from error
    ChatEncoder(tokenizer, model_path)


def _load_problem(error: Exception) -> str:
    """Why a model cannot be loaded, in one line."""
    reason = str(error).strip().splitlines()[0][:_REASON_LENGTH]
    if "trust_remote_code" in str(error):
        return "it brings code of its own; where you trust it, pass the engine's --...trust_remote_code"
    return reason
