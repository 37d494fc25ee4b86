"""What services charge: a dated table for Tinker, LiteLLM's for endpoints where it is installed."""

import json
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict

_TINKER = Path(__file__).with_name("tinker_prices.yaml")
_LITELLM = "model_prices_and_context_window_backup.json"  # comes with the library
# Whose prices an endpoint charges, by the end of its host: where LiteLLM's table lists its models.
_PROVIDERS = {
    "api.openai.com": "openai",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral",
    "api.groq.com": "groq",
    "api.together.xyz": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
    "api.moonshot.ai": "moonshot",
    "openrouter.ai": "openrouter",
    "dashscope-intl.aliyuncs.com": "dashscope",
}


@dataclass(frozen=True, slots=True)
class Prices:
    """What a service charges for a million tokens, in USD.

    Attributes:
        tokens_in: Of prompts.
        tokens_out: Of answers.
        source: Where they are from, `""` for flags.
    """

    tokens_in: float
    tokens_out: float
    source: str = ""

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What this many tokens cost."""
        return (prompt_tokens * self.tokens_in + completion_tokens * self.tokens_out) / 1_000_000


class TinkerPrice(BaseModel):
    """A line of the table: USD for a million tokens of a model on the hosted Tinker service, `None` for unknown.

    Attributes:
        model: As the service calls it.
        prefill: Of prompts.
        cached_prefill: Of prompts that it has just read.
        sample: Of sampled tokens.
        train: Of a training pass.
        source: Where that is said.
        date: When it was read there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    prefill: float
    cached_prefill: float | None = None
    sample: float
    train: float | None = None
    source: str
    date: date

    @property
    def said(self) -> str:
        """Table and date, for showing."""
        return f"{_TINKER.name}, read {self.date}"


@cache
def tinker_prices() -> dict[str, TinkerPrice]:
    """The table, by model."""
    entries = yaml.safe_load(_TINKER.read_text(encoding="utf-8"))
    return {price.model: price for price in map(TinkerPrice.model_validate, entries)}


def of_tinker(model: str) -> Prices | None:
    """What sampling from a model costs on the hosted Tinker service, `None` where the table lacks it."""
    price = tinker_prices().get(model)
    return Prices(price.prefill, price.sample, price.said) if price else None


def of_endpoint(base_url: str, model: str) -> Prices | None:
    """What an endpoint charges by LiteLLM's table; `None` without the library, the model or a host it is known for.

    Args:
        base_url: Of the endpoint: the same model costs different things at different hosts, and nothing at one's own.
            Of several, separated by spaces, which must all charge the same.
        model: The name under which it offers the model.
    """
    found = {_of_host(urlsplit(url).hostname or "", model) for url in base_url.split()}
    return found.pop() if len(found) == 1 else None


def _of_host(host: str, model: str) -> Prices | None:
    """What the service of a host charges."""
    provider = next((name for end, name in _PROVIDERS.items() if host == end or host.endswith(f".{end}")), None)
    if provider is None:
        return None
    table = _litellm_table()
    for name in (f"{provider}/{model}", model):
        entry = table.get(name, {})
        tokens_in, tokens_out = (entry.get(f"{way}_cost_per_token") for way in ("input", "output"))
        if tokens_in is not None and tokens_out is not None and entry.get("litellm_provider") == provider:
            return Prices(float(tokens_in) * 1e6, float(tokens_out) * 1e6, f"LiteLLM's table, {name}")
    return None


@cache
def _litellm_table() -> dict[str, dict[str, Any]]:
    """The table of an installed LiteLLM, read without importing it: that takes seconds and asks the network."""
    spec = find_spec("litellm")
    folders = (spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        file = Path(folder) / _LITELLM
        if file.is_file():
            table: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
            return table
    return {}
