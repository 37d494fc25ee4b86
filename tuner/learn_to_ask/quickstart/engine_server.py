"""SkyRL's Tinker service, with what it lacks for this pipeline added before it starts.

Runs in an environment of its own (constraints/engine.txt), so it imports nothing of this project, on the CPU or on the
GPU that this environment's JAX sees:

    python engine_server.py --base-model DIR --host 127.0.0.1 --port 8000 ...   # all flags of skyrl.tinker.api

SkyRL 0.3.0 splits the service into an API process and an engine process; both pass through this file.
"""

import os
import sys
import typing

_ENGINE_PROCESS = "LEARN2ASK_ENGINE_PROCESS"  # holds the shortest bucket, and so that a process is the engine's


def allow_python_311() -> None:
    """Below Python 3.12 pydantic refuses `typing.TypedDict`, which SkyRL uses; the backport is accepted."""
    if sys.version_info < (3, 12):
        import typing_extensions

        typing.TypedDict = typing_extensions.TypedDict


def sum_cross_entropy_losses() -> None:
    """Makes cross-entropy the plain sum that Tinker documents.

    SkyRL divides each sequence's loss by the sum of its weights. `forward_backward_custom`, which Trinity
    trains with, sends *gradients* as weights: their sums are near zero, or negative and then clamped to
    1e-9, which blows up every sequence with a negative advantage a billionfold and drowns the others.
    Multiplying by the same denominator first cancels the division.
    """
    import jax.numpy as jnp
    from skyrl.tinker import loss_fns
    from skyrl.tinker.types import LOSS_TYPES

    def cross_entropy_sum(target_logprobs, loss_mask, sampling_logprobs, advantages, config):  # type: ignore[no-untyped-def]
        losses = loss_fns.cross_entropy_loss(target_logprobs, loss_mask, sampling_logprobs, advantages, config)
        return losses * jnp.maximum(loss_mask.sum(axis=-1), 1e-9)

    loss_fns.LOSS_FUNCTIONS[LOSS_TYPES["cross_entropy"]] = cross_entropy_sum


def coarse_sequence_buckets(shortest: int) -> None:
    """Pads sequences to multiples of 64: every bucket costs a compilation, 6 s for a tiny model, 60 for a small one.

    Args:
        shortest: Room for the longest prompt: all prompts get as much, which costs little, as equal ones are read once.
    """
    from skyrl.tx.utils import models

    models.round_up_seq_len = lambda seq_len: max(shortest, -(-seq_len // 64) * 64)


def wait_for_full_batches() -> None:
    """Has the engine sample when a batch is full or no more requests come: a half-empty one costs as much.

    The engine looks every 0.1 s. Requests that came since it last looked are a sign of more on their way: it waits
    until 0.2 s have brought none, or a twentieth of what the last batch took, as that is what another one costs.
    """
    import time

    from skyrl.tinker.engine import TinkerEngine

    find, sample = TinkerEngine.find_batchable_sample, TinkerEngine.process_sample
    waiting = quiet = 0
    last_seconds = 0.0

    def find_full_batch(self, session):  # type: ignore[no-untyped-def]
        nonlocal waiting, quiet
        found = find(self, session)
        quiet = quiet + 1 if len(found) == waiting else 0
        waiting = len(found)
        looks = max(2, min(20, round(last_seconds / 20 / 0.1)))  # a compilation is no measure: 2 s are enough
        if quiet < looks and waiting < self.backend.config.sample_max_num_sequences:
            return {}
        waiting = quiet = 0
        return found

    def timed_sample(self, requests):  # type: ignore[no-untyped-def]
        nonlocal last_seconds
        started = time.monotonic()
        try:
            return sample(self, requests)
        finally:
            last_seconds = time.monotonic() - started

    TinkerEngine.find_batchable_sample = find_full_batch
    TinkerEngine.process_sample = timed_sample


def different_prompts(
    input_ids: typing.Any, attention_mask: typing.Any, adapter_indices: typing.Any
) -> tuple[typing.Any, typing.Any]:
    """Finds the different prompts of a batch.

    Args:
        input_ids: Tokens, of shape (rows, longest prompt).
        attention_mask: 1 for tokens, 0 for padding.
        adapter_indices: Of each row's adapter, or `None`; the same prompt with another adapter is another one.

    Returns:
        For each different prompt a row that holds it, padded to an eighth of the rows (groups of 8), a half or all, as
        each size costs a compilation; and for each row the position of its prompt among them.
    """
    import numpy as np

    columns = [input_ids, attention_mask.sum(axis=1)[:, None]]
    if adapter_indices is not None:
        columns.append(adapter_indices[:, None])
    rows = np.concatenate([np.asarray(column) for column in columns], axis=1)
    _, first, prompt_of_row = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    size = next(size for size in (len(rows) // 8, len(rows) // 2, len(rows)) if size >= len(first))
    padding = np.zeros(size - len(first), dtype=first.dtype)
    return np.concatenate([first, padding]), prompt_of_row.reshape(-1)


def read_equal_prompts_once() -> None:
    """Has the prefill read each prompt of a batch once: the rollouts of a group share theirs.

    SkyRL's prefill and decoding are one compiled function. It is compiled here with two more arguments, by which the
    model's first call, the prefill, works on the different prompts alone and hands each row its prompt's results.
    """
    import contextvars
    import functools
    import inspect

    import jax
    from skyrl.tx.models.llama3 import Llama3ForCausalLM
    from skyrl.tx.models.qwen3 import Qwen3ForCausalLM
    from skyrl.tx.utils.generator import GeneratorMixin

    prompts_of_rows: contextvars.ContextVar[typing.Any] = contextvars.ContextVar("prompts_of_rows", default=None)
    prefill_and_decode = GeneratorMixin._prefill_and_decode.__wrapped__
    signature = inspect.signature(prefill_and_decode)

    @functools.partial(
        jax.jit, static_argnames=("max_length", "max_new_tokens", "max_top_k", "use_top_p", "prompt_logprobs")
    )
    def shared_prefill_and_decode(*, first, prompt_of_row, **arguments):  # type: ignore[no-untyped-def]
        token = prompts_of_rows.set((first, prompt_of_row))
        try:
            return prefill_and_decode(**arguments)
        finally:
            prompts_of_rows.reset(token)

    def with_different_prompts(*arguments, **options):  # type: ignore[no-untyped-def]
        named = signature.bind(*arguments, **options).arguments
        first, prompt_of_row = different_prompts(named["input_ids"], named["attention_mask"], named["adapter_indices"])
        return shared_prefill_and_decode(first=first, prompt_of_row=prompt_of_row, **named)

    def prefilling_once(call: typing.Any) -> typing.Any:
        @functools.wraps(call)
        def wrapped(self, input_ids, *, attention_mask, adapter_indices=None, kv_cache=None, **options):  # type: ignore[no-untyped-def]
            shared = prompts_of_rows.get()
            if shared is None or kv_cache is not None:
                return call(
                    self,
                    input_ids,
                    attention_mask=attention_mask,
                    adapter_indices=adapter_indices,
                    kv_cache=kv_cache,
                    **options,
                )
            first, prompt_of_row = shared
            adapters = None if adapter_indices is None else adapter_indices[first]
            outputs = call(
                self, input_ids[first], attention_mask=attention_mask[first], adapter_indices=adapters, **options
            )
            return jax.tree.map(lambda leaf: leaf[prompt_of_row], outputs)

        return wrapped

    GeneratorMixin._prefill_and_decode = staticmethod(with_different_prompts)
    for model in (Llama3ForCausalLM, Qwen3ForCausalLM):
        model.__call__ = prefilling_once(model.__call__)


def answer_soon() -> None:
    """Has the API hand a result over within 0.1 s.

    Each waiting request looks for its own result, in pauses that grow to a second: half a batch would be late, and
    shorter pauses for all would take the engine's processor time. Here one look for all ends their pauses.
    """
    import asyncio
    import types

    from skyrl.tinker import api
    from skyrl.tinker.db_models import FutureDB, RequestStatus
    from sqlmodel import func, select
    from sqlmodel.ext.asyncio.session import AsyncSession

    waiting: set[asyncio.Event] = set()

    before = -1

    async def look_for_results() -> None:
        nonlocal before
        # By the index of this column; what is done leaves it, and so wakes who waits.
        pending = select(func.count()).where(FutureDB.status == RequestStatus.PENDING)
        while waiting:
            async with AsyncSession(api.app.state.db_engine) as session:
                now = (await session.exec(pending)).one()
            if now != before:
                before = now
                for event in waiting:
                    event.set()
            await asyncio.sleep(0.1)

    async def pause(delay: float) -> None:
        event = asyncio.Event()
        waiting.add(event)
        if not looking or looking[-1].done():
            looking[:] = [asyncio.create_task(look_for_results())]
        try:
            await asyncio.wait_for(event.wait(), max(delay, 2.0))  # the look above ends it sooner
        except TimeoutError:
            pass
        finally:
            waiting.discard(event)

    looking: list[asyncio.Task[None]] = []  # asyncio itself keeps no hold of a task
    api.asyncio = types.SimpleNamespace(**{**vars(asyncio), "sleep": pause})


def forget_former_requests(database: str) -> None:
    """Marks what clients of a former, killed service still wanted as failed: it would be worked on before all else.

    Args:
        database: URL of an SQLite file.
    """
    import contextlib
    import pathlib
    import sqlite3

    file = pathlib.Path(database.removeprefix("sqlite:///"))
    if file.is_file():
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'futures'").fetchone():
                connection.execute("UPDATE futures SET status = 'FAILED' WHERE status = 'PENDING'")


def stop_at_end_token(base_model: str) -> None:
    """Fills in the tokenizer's end token where a request names no `stop`, as the hosted service does."""
    from skyrl.tinker import api
    from transformers import AutoTokenizer

    end_token = AutoTokenizer.from_pretrained(base_model).eos_token_id
    to_types = api.SamplingParams.to_types

    def to_types_with_stop(self):  # type: ignore[no-untyped-def]
        parameters = to_types(self)
        if parameters.stop_tokens is None and parameters.stop_strings is None:
            parameters.stop_tokens = [end_token]
        return parameters

    api.SamplingParams.to_types = to_types_with_stop


def start_engine_through_this_file(shortest: int) -> None:
    """Has the API start its engine with this interpreter and file instead of asking `uv` for both.

    Args:
        shortest: For `coarse_sequence_buckets`.
    """
    from skyrl.tinker import api
    from skyrl.tinker.config import config_to_argv

    def engine_command(parent_command, engine_config):  # type: ignore[no-untyped-def]
        os.environ[_ENGINE_PROCESS] = str(shortest)
        return [sys.executable, __file__, *config_to_argv(engine_config)]

    api._build_uv_run_cmd_engine = engine_command


def main() -> None:
    """Runs the process this file was started for."""
    allow_python_311()
    if shortest := os.environ.get(_ENGINE_PROCESS):
        from skyrl.tinker import engine

        sum_cross_entropy_losses()
        coarse_sequence_buckets(int(shortest))
        wait_for_full_batches()
        read_equal_prompts_once()
        engine.main()
        return
    import argparse

    import uvicorn
    from skyrl.tinker import api
    from skyrl.tinker.config import EngineConfig, add_model
    from skyrl.utils.log import get_uvicorn_log_config

    parser = argparse.ArgumentParser(description="SkyRL's Tinker service, completed for this pipeline")
    add_model(parser, EngineConfig)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--shortest-bucket", type=int, default=128, help="tokens; room for the longest prompt is best")
    arguments = vars(parser.parse_args())
    stop_at_end_token(arguments["base_model"])
    answer_soon()
    forget_former_requests(arguments["database_url"])
    start_engine_through_this_file(arguments.pop("shortest_bucket"))
    host, port = arguments.pop("host"), arguments.pop("port")
    api.app.state.engine_config = EngineConfig.model_validate(arguments)
    uvicorn.run(api.app, host=host, port=port, log_config=get_uvicorn_log_config())


if __name__ == "__main__":
    main()
