"""Over how many GPUs vLLM can split a model: what its attention heads allow."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention heads of a model.

    Attributes:
        query: Query heads.
        key_value: Key-value heads, fewer where several query heads share one.
    """

    query: int
    key_value: int

    def fitting_gpus(self, gpus: int) -> int:
        """The most GPUs over which vLLM can split them, at least 1.

        Query heads are divided evenly; key-value heads are divided evenly or, when there are fewer, copied evenly.

        Args:
            gpus: GPUs at hand.
        """
        return max(
            size
            for size in range(1, max(gpus, 1) + 1)
            if self.query % size == 0 and (self.key_value % size == 0 or size % self.key_value == 0)
        )


def read_heads(model_path: str, *, trust_remote_code: bool = False) -> Heads:
    """The heads that a model's configuration names.

    Args:
        model_path: A local folder or a hub id.
        trust_remote_code: Whether a configuration class that the model brings along may be run.

    Raises:
        OSError: When there is no configuration, or the hub does not answer.
        ValueError: When it cannot be read.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code).get_text_config()
    query: int = config.num_attention_heads
    return Heads(query, getattr(config, "num_key_value_heads", None) or query)
