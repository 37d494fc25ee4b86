"""The `tinker` engine: a base model or trained weights on a Tinker service, so that no GPU is needed."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from tuner.learn_to_ask.engines.base import Applied, Reply, Request, Sampling, as_asked
from tuner.learn_to_ask.engines.chat import ChatEncoder, tell_fitting
from tuner.learn_to_ask.errors import UserError

# Requests under way at once; the service batches what waits for it.
_IN_FLIGHT = 64


class TinkerEngine:
    """Answers conversations with the Tinker sampling API.

    The API has no repetition penalty; `Sampling.repetition_penalty` is ignored here.
    """

    def __init__(self, model_path: str, *, seed: int) -> None:
        """Connects to the service.

        Args:
            model_path: A base model the service offers, or the `tinker://` path of sampler weights.
            seed: First seed; every request of the run gets one of its own.

        Raises:
            UserError: Without a key, or when the service cannot sample from this model.
        """
        import tinker

        if not os.environ.get("TINKER_API_KEY"):
            raise UserError("the tinker engine reads its key from the environment: set TINKER_API_KEY")
        try:
            service: Any = tinker.ServiceClient()
            source = "model_path" if model_path.startswith("tinker://") else "base_model"
            self._client: Any = service.create_sampling_client(**{source: model_path})
            self._tokenizer: Any = self._client.get_tokenizer()
        except (tinker.TinkerError, OSError, ValueError) as error:
            raise UserError(f"tinker cannot sample from {model_path}: {error}") from error
        self._encoder = ChatEncoder(self._tokenizer, model_path)
        tell_fitting(self._encoder.fitting, model_path)
        self.description = f"tinker:{model_path}"
        self._seed = seed

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the replies as they finish."""
        from tinker import types

        stream = iter(requests)
        running: dict[Future[Any], tuple[Request, int]] = {}
        while True:
            while len(running) < _IN_FLIGHT and (request := next(stream, None)) is not None:
                ids, _ = self._encoder.encode(request.messages)
                self._seed += sampling.n
                parameters = types.SamplingParams(
                    max_tokens=sampling.max_tokens,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    seed=self._seed,
                    stop=[self._tokenizer.eos_token_id],
                )
                future = self._client.sample(types.ModelInput.from_ints(ids), sampling.n, parameters)
                running[future] = (request, len(ids))
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                request, prompt_tokens = running.pop(future)
                yield self._reply(request.key, prompt_tokens, future)

    def applied(self, sampling: Sampling) -> Applied:
        """Everything but the repetition penalty, which the API has not."""
        return {**as_asked(sampling), "repetition_penalty": 1.0}

    def summary(self) -> list[tuple[str, object]]:
        """Nothing else to tell."""
        return []

    def close(self) -> None:
        """The SDK closes its connections with the process."""

    def _reply(self, key: int, prompt_tokens: int, future: "Future[Any]") -> Reply:
        """The reply that a finished future holds."""
        import tinker

        try:
            sequences = future.result().sequences
        except tinker.TinkerError as error:
            return Reply(key, [], prompt_tokens, error=type(error).__name__)
        texts = [self._tokenizer.decode(sequence.tokens, skip_special_tokens=True) for sequence in sequences]
        tokens = sum(len(sequence.tokens) for sequence in sequences)
        cut_off = tuple(sequence.stop_reason == "length" for sequence in sequences)
        return Reply(key, texts, prompt_tokens, tokens, cut_off=cut_off)
