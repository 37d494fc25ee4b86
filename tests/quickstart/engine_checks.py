"""Runs in the engine's environment: what `engine_server.py` changes in SkyRL, one check a function.

.venv-engine/bin/python tests/quickstart/engine_checks.py CHECK
"""

import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tuner" / "learn_to_ask" / "quickstart"))

import engine_server

engine_server.allow_python_311()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402
from skyrl.tinker import types  # noqa: E402

PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12]]
MODELS = ("Qwen3", "Llama")


def tiny_model(family):
    """A random model with random adapters, for a batch of any size."""
    import transformers
    from skyrl.tx.models.configs import Qwen3Config
    from skyrl.tx.models.llama3 import Llama3ForCausalLM
    from skyrl.tx.models.qwen3 import Qwen3ForCausalLM

    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True}
    config = getattr(transformers, f"{family}Config")(**shape)
    config = Qwen3Config(config, max_lora_adapters=3, max_lora_rank=4, shard_attention_heads=True)
    mesh = jax.make_mesh((1, 1, 1), ("fsdp", "ep", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    of_class = {"Qwen3": Qwen3ForCausalLM, "Llama": Llama3ForCausalLM}[family]
    with jax.set_mesh(mesh), nnx.use_eager_sharding(True):
        model = of_class(config, dtype=jax.numpy.float32, rngs=nnx.Rngs(0))
        changed = 0  # adapters start without effect: B is 0
        for path, leaf in nnx.iter_graph(model):
            if path and path[-1] == "lora_B":
                leaf[...] = jax.random.normal(jax.random.PRNGKey(len(path)), leaf.shape) * 0.3
                changed += 1
    assert changed
    return model, mesh


def generated(model, mesh, rows, adapters):
    """What each row's prompt is continued with, and how likely that was."""
    width = 8
    ids = np.array([PROMPTS[row] + [0] * (width - len(PROMPTS[row])) for row in rows], dtype=np.int32)
    mask = np.array([[1] * len(PROMPTS[row]) + [0] * (width - len(PROMPTS[row])) for row in rows], dtype=np.int32)
    sampling = [
        types.SamplingParams(temperature=1.0, max_tokens=6, seed=seed, stop_tokens=[0]) for seed in range(len(rows))
    ]
    with jax.set_mesh(mesh):
        output = model.generate(
            jax.numpy.array(ids), jax.numpy.array(mask), sampling_params=sampling,
            adapter_indices=jax.numpy.array(adapters, dtype=jax.numpy.int32),
        )  # fmt: skip
    return output.generated_ids, output.logprobs


def equal_prompts_are_read_once_and_answered_as_before():
    """Groups of one prompt, of several, with different adapters: the same tokens and probabilities."""
    batches = [
        ([0] * 8, [1] * 8),
        ([0, 1] * 4, [1] * 8),
        ([0, 0, 0, 0, 1, 1, 2, 2], [1, 1, 2, 2, 1, 1, 0, 0]),
        ([0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 1, 2, 0, 2, 0]),
    ]
    models = {family: tiny_model(family) for family in MODELS}
    plain = {family: [generated(*found, *batch) for batch in batches] for family, found in models.items()}
    engine_server.read_equal_prompts_once()
    for family, (model, mesh) in models.items():
        for (tokens, logprobs), batch in zip(plain[family], batches, strict=True):
            tokens_now, logprobs_now = generated(model, mesh, *batch)
            assert tokens_now == tokens, (family, batch)
            for row, row_now in zip(logprobs, logprobs_now, strict=True):
                np.testing.assert_allclose(row_now, row, rtol=1e-4, atol=1e-4)
        assert len({tuple(row) for row in plain[family][0][0]}) > 1  # rollouts of one prompt differ by their seeds


def batches_wait_while_requests_come():
    """Found by each look of the engine, and what it samples then."""
    from skyrl.tinker.engine import TinkerEngine

    looks = iter([0, 3, 5, 5, 5, 0, 2, 4, 1, 1, 1])
    TinkerEngine.find_batchable_sample = lambda self, session: dict.fromkeys(range(next(looks)))
    TinkerEngine.process_sample = lambda self, requests: "sampled"
    engine_server.wait_for_full_batches()
    engine = SimpleNamespace(backend=SimpleNamespace(config=SimpleNamespace(sample_max_num_sequences=4)))
    taken = [len(TinkerEngine.find_batchable_sample(engine, None)) for _ in range(11)]
    # 3 wait; 5 are more than a batch and go; then 2 wait, 4 fill a batch, 1 goes when two looks brought no more.
    assert taken == [0, 0, 5, 5, 5, 0, 0, 4, 0, 0, 1], taken
    assert TinkerEngine.process_sample(engine, {}) == "sampled"


def a_result_ends_the_pause_of_who_waits_for_it():
    """A pause of ten minutes ends when another process has finished a request, and not before."""
    import asyncio
    import tempfile

    from skyrl.tinker import api
    from skyrl.tinker.db_models import FutureDB, RequestStatus, SQLModel
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlmodel import Session, create_engine

    async def wait(path):
        api.app.state.db_engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        await api.asyncio.sleep(600)  # the first look ends it
        pause = asyncio.create_task(api.asyncio.sleep(600))
        await asyncio.sleep(0.5)  # some looks
        assert not pause.done()
        with Session(create_engine(f"sqlite:///{path}")) as session:
            session.get(FutureDB, 1).status = RequestStatus.COMPLETED
            session.commit()
        await asyncio.wait_for(pause, 60)
        await api.app.state.db_engine.dispose()

    engine_server.answer_soon()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/engine.db"
        SQLModel.metadata.create_all(create_engine(f"sqlite:///{path}"))
        with Session(create_engine(f"sqlite:///{path}")) as session:
            session.add(FutureDB(request_type=types.RequestType.SAMPLE, request_data={}, status=RequestStatus.PENDING))
            session.commit()
        asyncio.run(wait(path))
    assert api.asyncio.create_task is asyncio.create_task


def a_restarted_service_forgets_what_its_former_clients_wanted():
    """What was pending is failed, what was done stays, and a new database is no trouble."""
    import tempfile

    from skyrl.tinker.db_models import FutureDB, RequestStatus, SQLModel
    from sqlmodel import Session, create_engine, select

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/engine.db"
        engine_server.forget_former_requests(url)
        SQLModel.metadata.create_all(create_engine(url))
        with Session(create_engine(url)) as session:
            for status in (RequestStatus.PENDING, RequestStatus.COMPLETED):
                session.add(FutureDB(request_type=types.RequestType.SAMPLE, request_data={}, status=status))
            session.commit()
        engine_server.forget_former_requests(url)
        with Session(create_engine(url)) as session:
            found = [future.status for future in session.exec(select(FutureDB).order_by(FutureDB.request_id))]
    assert found == [RequestStatus.FAILED, RequestStatus.COMPLETED], found


if __name__ == "__main__":
    globals()[sys.argv[1]]()
