"""The `vllm` engine: a local or hub model in this process, with continuous batching and prefix caching."""

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.engines.base import (
    PROMPT_TOO_LONG,
    Applied,
    EngineDiedError,
    Reply,
    Request,
    Sampling,
    as_asked,
)
from tuner.learn_to_ask.engines.chat import ChatEncoder, tell_fitting
from tuner.learn_to_ask.engines.tensor_parallel import read_heads
from tuner.learn_to_ask.engines.transformers import require_model, require_template
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.adapter_weights import changed_modules, module_names
from tuner.learn_to_ask.models.model_source import Adapter

# Answers handed to vLLM, as a multiple of what it works on at a time: the rest is its queue, so that no place in
# the batch stays empty while the next prompts are tokenized.
_QUEUE_FACTOR = 2
_WATCH_SECONDS = 1.0
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

# Reads until the pipe from this process breaks, then kills the processes it was told of.
_GUARD = """
import os, signal, sys
sys.stdin.read()
for pid in map(int, sys.argv[1:]):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class VLLMEngine:
    """Answers conversations with `vllm.LLM`.

    New conversations join the running batch as soon as others leave it, so there is no window whose slowest answer
    holds up the rest, and replies come as they finish.
    """

    def __init__(
        self,
        model_path: str,
        *,
        seed: int,
        tensor_parallel_size: int | None = None,
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.9,
        dtype: str = "auto",
        enforce_eager: bool = False,
        adapter: Adapter | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Loads the model onto the GPUs, or the CPU with a build of vLLM for it.

        Args:
            model_path: A local folder or a hub id.
            seed: Seed of the sampling; what comes out also depends on what shares a batch.
            tensor_parallel_size: GPUs to spread the model over, `None` for as many of the visible ones as its
                attention heads can be divided by.
            max_model_len: Longest prompt and answer together, `None` for what the model can.
            gpu_memory_utilization: Share of each GPU's memory for weights and cache.
            dtype: Number format of weights and activations; `auto` takes the model's own.
            enforce_eager: Starts quicker and runs slower, without compilation and CUDA graphs.
            adapter: A LoRA adapter that every request is answered with.
            trust_remote_code: Whether to run the code that the model brings along.

        Raises:
            UserError: When there is no such model or vLLM cannot run it with these settings.
        """
        require_model(model_path)
        if not installed():
            raise UserError('the vllm engine needs vLLM: pip install -e ".[gpu]", or choose another engine')
        import vllm

        require_template(model_path, adapter, trust_remote_code)
        if adapter:  # vLLM drops weights that it has no place for in silence
            changed_modules(adapter, module_names(model_path, trust_remote_code=trust_remote_code))
        before = set(multiprocessing.active_children())
        try:
            self._llm: Any = vllm.LLM(
                model=model_path,
                seed=seed,
                tensor_parallel_size=tensor_parallel_size or _usable_gpus(model_path, trust_remote_code),
                max_model_len=max_model_len,
                gpu_memory_utilization=gpu_memory_utilization,
                dtype=dtype,
                enforce_eager=enforce_eager,
                trust_remote_code=trust_remote_code,
                enable_prefix_caching=True,
                use_tqdm_on_load=False,
                **(_lora_settings(adapter) if adapter else {}),
            )
            self._lora = _load_adapter(self._llm, adapter) if adapter else None
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"model {model_path}: vLLM cannot run it: {_first_reason(error)}. If the messages above speak of "
                "memory, lower max_model_len or gpu_memory_utilization, or use more GPUs"
            ) from error
        self._guard = _start_guard(set(multiprocessing.active_children()) - before)
        self._encoder = ChatEncoder(self._llm.get_tokenizer(), model_path)
        tell_fitting(self._encoder.fitting, model_path)
        self._request_ids = count()
        self._truncated: set[int] = set()
        self._closed = threading.Event()
        _watch(self._llm.llm_engine.engine_core, self._closed)
        self.description = f"vllm:{model_path}"

    @property
    def places(self) -> int:
        """How many answers it wants under way at a time."""
        return self._batch_places() * _QUEUE_FACTOR

    @property
    def truncated(self) -> int:
        """How many conversations lost their oldest turns so far; a repeated key counts once."""
        return len(self._truncated)

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the replies as they finish.

        A conversation whose system prompt and last message alone exceed the context gets an error reply.

        Args:
            requests: Asked again after it had nothing, as long as something is under way: it may get more.
            sampling: The same for all.

        Raises:
            EngineDiedError: When vLLM's engine process dies.
            UserError: When `max_tokens` leaves no room for a prompt.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        limit = self._prompt_limit(sampling.max_tokens)
        parameters = _sampling_params(sampling)
        in_flight = max(1, self.places // sampling.n)
        stream = iter(requests)
        running: dict[str, int] = {}
        try:
            while True:
                while len(running) < in_flight and (request := next(stream, None)) is not None:
                    ids = self._encode(request, limit)
                    if len(ids) > limit:
                        yield Reply(request.key, [], error=PROMPT_TOO_LONG, final=True)
                    else:
                        running[self._submit(ids, parameters)] = request.key
                if not running:
                    return
                for output in self._llm.llm_engine.step():
                    yield _reply(running.pop(output.request_id), output)
        except EngineDeadError as error:
            raise EngineDiedError(
                "vLLM's engine process died, its messages above say why; results so far are kept: put the cause "
                "right (out of memory: lower max_model_len or gpu_memory_utilization) and pass --resume"
            ) from error
        finally:
            self._abort(list(running))

    def applied(self, sampling: Sampling) -> Applied:
        """All of it."""
        return as_asked(sampling)

    def summary(self) -> list[tuple[str, object]]:
        """How many prompts lost their oldest turns."""
        return [("prompts shortened", self.truncated)]

    def close(self) -> None:
        """Ends vLLM's engine process and frees the GPUs, so that another model can be loaded here."""
        if self._llm is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._closed.set()
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        cleanup_dist_env_and_memory()
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()

    def _prompt_limit(self, max_tokens: int) -> int:
        """The longest prompt that leaves room for the answer."""
        context: int = self._llm.llm_engine.vllm_config.model_config.max_model_len
        if max_tokens >= context:
            raise UserError(
                f"answers of {max_tokens} tokens leave no room for a prompt in a context of {context}: raise "
                "max_model_len, or lower max_tokens where it can be set"
            )
        return context - max_tokens

    def _batch_places(self) -> int:
        """How many answers vLLM works on at a time."""
        places: int = self._llm.llm_engine.vllm_config.scheduler_config.max_num_seqs
        return places

    def _encode(self, request: Request, limit: int) -> list[int]:
        """The prompt's tokens, shortened where that helps and counted as such."""
        ids, shortened = self._encoder.encode(request.messages, max_prompt_tokens=limit)
        if shortened and len(ids) <= limit:
            self._truncated.add(request.key)
        return ids

    def _submit(self, ids: list[int], parameters: Any) -> str:
        """Hands a prompt to vLLM and returns the id that its output will carry."""
        request_id = str(next(self._request_ids))
        # The form of a prompt that is tokenized already, as vllm.inputs makes it under a name that changed over time.
        prompt = {"type": "token", "prompt_token_ids": ids}
        self._llm.llm_engine.add_request(request_id, prompt, parameters, lora_request=self._lora)
        return request_id

    def _abort(self, request_ids: list[str]) -> None:
        """Takes back what nobody waits for any more, so that the next `generate` starts clean."""
        if request_ids and self._llm is not None:
            self._llm.llm_engine.abort_request(request_ids)


def installed() -> bool:
    """Whether vLLM can be imported; a mere folder of that name does not count."""
    spec = find_spec("vllm")
    return spec is not None and spec.origin is not None


def _lora_settings(adapter: Adapter) -> dict[str, Any]:
    """What `vllm.LLM` has to know of an adapter: it only reserves room for certain ranks."""
    rank = next((rank for rank in _LORA_RANKS if rank >= adapter.rank), None)
    if rank is None:
        raise UserError(
            f"adapter {adapter.folder}: vLLM knows no rank above {_LORA_RANKS[-1]}, this one has {adapter.rank}; "
            "choose the transformers engine"
        )
    tokenizer = {"tokenizer": adapter.folder} if adapter.tokenizer else {}
    return {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1, **tokenizer}


def _load_adapter(llm: Any, adapter: Adapter) -> Any:
    """Loads the adapter, and so finds out here whether it fits; gives what requests carry.

    Raises:
        UserError: When vLLM cannot use it.
    """
    from vllm.lora.request import LoRARequest

    request = LoRARequest(Path(adapter.folder).name, 1, str(Path(adapter.folder).absolute()))
    try:
        llm.llm_engine.add_lora(request)
    except Exception as error:  # from vLLM's engine process every error comes as a plain one
        raise UserError(
            f"adapter {adapter.folder}: vLLM cannot use it: {_first_reason(error)}; the transformers engine can do more"
        ) from error
    return request


def _start_guard(processes: set[Any]) -> "subprocess.Popen[bytes] | None":
    """Has vLLM's engine process end with this one even after `kill -9`, or it would hold the GPU for ever.

    Args:
        processes: What vLLM started; none when it works in this process.
    """
    if not processes:
        return None
    pids = [str(process.pid) for process in processes]
    command = [sys.executable, "-c", _GUARD, *pids]
    # In a session of its own, so that Ctrl-C does not reach it.
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _watch(engine_core: Any, closed: threading.Event) -> None:
    """Has `step` fail when the engine process is killed from outside, where vLLM's own client waits for ever.

    Args:
        engine_core: vLLM's client of its engine; one without a process of its own needs no watching.
        closed: Ends the watch.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    resources, outputs = getattr(engine_core, "resources", None), getattr(engine_core, "outputs_queue", None)
    if resources is None or outputs is None:
        return

    def watch() -> None:
        while not closed.wait(_WATCH_SECONDS):
            if resources.engine_dead:
                outputs.put(EngineDeadError())
                return

    threading.Thread(target=watch, name="vllm-engine-watch", daemon=True).start()


def _usable_gpus(model_path: str, trust_remote_code: bool) -> int:
    """As many of the visible GPUs as the model can be split over, 1 without any."""
    import torch

    gpus: int = torch.cuda.device_count()
    if gpus < 2:
        return 1
    heads = read_heads(model_path, trust_remote_code=trust_remote_code)
    usable = heads.fitting_gpus(gpus)
    if usable < gpus:
        said = f"uses {usable} of {gpus} GPUs, its {heads.query} heads cannot be split further"
        print(f"{model_path}: {said}", file=sys.stderr)
    return usable


def _sampling_params(sampling: Sampling) -> Any:
    """The sampling in vLLM's terms; every answer is reported once, when it is complete."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        repetition_penalty=sampling.repetition_penalty,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _reply(key: int, output: Any) -> Reply:
    """The reply that a finished output holds."""
    return Reply(
        key,
        [answer.text for answer in output.outputs],
        prompt_tokens=len(output.prompt_token_ids),
        completion_tokens=sum(len(answer.token_ids) for answer in output.outputs),
        cut_off=tuple(answer.finish_reason == "length" for answer in output.outputs),
    )


def _first_reason(error: Exception) -> str:
    """What an error says, on one line; pydantic's begin with a headline that says nothing."""
    from pydantic import ValidationError

    text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__
