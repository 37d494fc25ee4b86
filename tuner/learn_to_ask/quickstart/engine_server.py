"""SkyRL's Tinker service on the CPU, with what it lacks for this pipeline added before it starts.

Runs in an environment of its own (constraints/engine.txt), so it imports nothing of this project:

    python engine_server.py --base-model DIR --host 127.0.0.1 --port 8000 ...   # all flags of skyrl.tinker.api

SkyRL 0.3.0 splits the service into an API process and an engine process; both pass through this file.
"""

import os
import runpy
import sys
import typing

_ENGINE_PROCESS = "LEARN2ASK_ENGINE_PROCESS"


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


def coarse_sequence_buckets() -> None:
    """Pads prompts to multiples of 64 from 128 on: every finer bucket costs a compilation of about 6 seconds."""
    from skyrl.tx.utils import models

    models.round_up_seq_len = lambda seq_len: max(128, -(-seq_len // 64) * 64)


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


def start_engine_through_this_file() -> None:
    """Has the API start its engine with this interpreter and file instead of asking `uv` for both."""
    from skyrl.tinker import api
    from skyrl.tinker.config import config_to_argv

    def engine_command(parent_command, engine_config):  # type: ignore[no-untyped-def]
        os.environ[_ENGINE_PROCESS] = "1"
        return [sys.executable, __file__, *config_to_argv(engine_config)]

    api._build_uv_run_cmd_engine = engine_command


def main() -> None:
    """Runs the process this file was started for."""
    allow_python_311()
    if os.environ.get(_ENGINE_PROCESS):
        sum_cross_entropy_losses()
        coarse_sequence_buckets()
        runpy.run_module("skyrl.tinker.engine", run_name="__main__")
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
    arguments = vars(parser.parse_args())
    stop_at_end_token(arguments["base_model"])
    start_engine_through_this_file()
    host, port = arguments.pop("host"), arguments.pop("port")
    api.app.state.engine_config = EngineConfig.model_validate(arguments)
    uvicorn.run(api.app, host=host, port=port, log_config=get_uvicorn_log_config())


if __name__ == "__main__":
    main()
