"""Every call that Trinity-RFT 0.5.2 and this project make of the Tinker SDK, against a service with its protocol.

Run with the SDK of the client's lock in `make test` and with the newest in `make test-tinker`.

| call | made by |
|---|---|
| ServiceClient, create_rest_client | trinity/trainer/tinker/tinker_trainer.py, prepare |
| create_lora_training_client_async, get_info_async | the same, on a new run |
| create_training_client_from_state_with_optimizer_async | the same, on a run that goes on |
| create_sampling_client_async(base_model=) | the same, for the reference; common/models/tinker_model.py, prepare |
| create_sampling_client_async(model_path=) | tinker_model.py, sync_model |
| compute_logprobs_async | tinker_model.py, logprobs; tinker_trainer.py, train_step |
| sample_async | tinker_model.py, _generate_internal |
| forward_backward_custom_async, optim_step_async | tinker_trainer.py, train_step |
| save_state_async, save_weights_for_sampler_async | tinker_trainer.py, save_checkpoint and save_state_dict |
| delete_checkpoint_async | tinker_trainer.py, save_state_dict |
| get_server_capabilities | preflight/services.py |
| create_training_client_from_state, save_weights_for_sampler | resume.py |
| create_sampling_client, get_tokenizer, sample | engines/tinker.py |

What the service computes is made up, so nothing here says that the hosted one trains: it was not reached.
"""

import asyncio
import math

import pytest
from tinker_service import LOGPROB, MODEL, SAMPLED, tinker_service

torch = pytest.importorskip("torch")
tinker = pytest.importorskip("tinker")
from tinker import types  # noqa: E402

PROMPT = [1, 2, 3, 4]


@pytest.fixture
def service(monkeypatch):
    with tinker_service() as running:
        monkeypatch.setenv("TINKER_API_KEY", "tml-test")
        monkeypatch.setenv("TINKER_BASE_URL", running.base_url)
        yield running


def datum(tokens):
    """A sequence as trinity/trainer/tinker/utils.py hands it over."""
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens),
        loss_fn_inputs={
            "weights": types.TensorData.from_torch(torch.ones(len(tokens))),
            "target_tokens": types.TensorData.from_torch(torch.tensor(tokens, dtype=torch.int64)),
        },
    )


def test_a_training_step_on_a_new_run(service):
    """Given a new run, when a step is trained as Trinity does, then gradients of its own loss reach the service."""
    seen = []

    def loss(data, logprobs):
        seen.append([values.tolist() for values in logprobs])
        return sum((values**2).sum() for values in logprobs), {"own": 1.0}

    async def step():
        client = tinker.ServiceClient()
        client.create_rest_client()
        actor = await client.create_lora_training_client_async(
            base_model=MODEL, rank=16, seed=0, train_mlp=True, train_attn=True, train_unembed=False
        )
        info = await actor.get_info_async()
        update = await actor.forward_backward_custom_async([datum(PROMPT), datum(PROMPT[:2])], loss)
        optimiser = await actor.optim_step_async(types.AdamParams(learning_rate=1e-4, beta1=0.9, beta2=0.95))
        return info, await update, await optimiser

    info, update, optimised = asyncio.run(step())

    assert info.model_data.model_name == MODEL
    assert seen == [[[LOGPROB] * 4, [LOGPROB] * 2]]
    assert update.metrics["own"] == 1.0
    assert not optimised.metrics
    (created,) = service.bodies("create_model")
    assert created["base_model"] == MODEL
    assert created["lora_config"]["rank"] == 16
    assert created["lora_config"]["train_unembed"] is False
    passes = [*service.bodies("forward"), *service.bodies("forward_backward")]
    assert [found["lengths"] for found in passes] == [[4, 2]] * 2  # one to know, one to learn
    (optimiser,) = service.bodies("optim_step")
    assert optimiser["adam_params"]["learning_rate"] == pytest.approx(1e-4)


def test_what_a_run_saves(service):
    async def save():
        client = tinker.ServiceClient()
        manager = client.create_rest_client()
        actor = await client.create_lora_training_client_async(base_model=MODEL, rank=16)
        state = await (await actor.save_state_async("run-state-2"))
        sampler = await (await actor.save_weights_for_sampler_async("run-sampler-2"))
        await manager.delete_checkpoint_async("run", "sampler_weights/old")
        return state.path, sampler.path

    assert asyncio.run(save()) == ("tinker://run/weights/run-state-2", "tinker://run/sampler_weights/run-sampler-2")


def test_a_run_goes_on_with_its_optimizer(service):
    async def load():
        client = tinker.ServiceClient()
        await client.create_training_client_from_state_with_optimizer_async(path="tinker://run/weights/run-state-2")

    asyncio.run(load())

    (loaded,) = service.bodies("load_weights")
    assert loaded["path"] == "tinker://run/weights/run-state-2"
    assert loaded["optimizer"] is True


@pytest.mark.parametrize("source", ["base_model", "model_path"])
def test_rollouts_carry_their_sampling(source, service):
    """Given parameters as Trinity's engine fills them in, when a group is sampled, then they arrive as they are."""
    name = {"base_model": MODEL, "model_path": "tinker://run/sampler_weights/run-sampler-2"}[source]

    async def sample():
        client = await tinker.ServiceClient().create_sampling_client_async(**{source: name})
        return await client.sample_async(
            prompt=types.ModelInput.from_ints(PROMPT),
            sampling_params={"max_tokens": 5, "seed": 42, "temperature": 0.5, "top_k": -1, "top_p": 0.9},
            num_samples=3,
            include_prompt_logprobs=False,
            topk_prompt_logprobs=0,
        )

    answered = asyncio.run(sample())

    assert [(list(found.tokens), list(found.logprobs)) for found in answered.sequences] == [
        (SAMPLED, [LOGPROB] * len(SAMPLED))
    ] * 3
    (opened,) = service.bodies("create_sampling_session")
    assert opened[source] == name
    asked = service.bodies("asample")[0]
    assert asked["num_samples"] == 3
    assert asked["sampling_params"]["temperature"] == 0.5
    assert asked["sampling_params"]["seed"] == 42
    assert asked["sampling_params"]["max_tokens"] == 5


def test_the_reference_policy_gives_log_probabilities_of_the_whole_prompt(service):
    async def compute():
        client = await tinker.ServiceClient().create_sampling_client_async(base_model=MODEL)
        return await client.compute_logprobs_async(types.ModelInput.from_ints(PROMPT))

    first, *others = asyncio.run(compute())

    assert first is None or math.isnan(first)
    assert others == [LOGPROB] * 3


def test_the_preflight_asks_for_the_line_up(service):
    from tuner.learn_to_ask.training.preflight.services import offered_models

    assert offered_models(service.base_url) == [MODEL]


def test_a_checkpoint_is_made_fit_for_sampling(service, tmp_path):
    """Given a checkpoint without sampler weights, when the run goes on, then the service is asked for them once."""
    from tuner.learn_to_ask.training.resume import save_sampler_weights

    checkpoint = tmp_path / "run" / "global_step_2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "remote_checkpoint_path.txt").write_text("tinker://run/weights/run-state-2")

    for _ in range(2):
        save_sampler_weights(tmp_path / "run", 2, service.base_url)

    assert (tmp_path / "run" / "latest_state_dict_iteration.txt").read_text() == "2"
    assert (checkpoint / "remote_sampler_path.txt").read_text().startswith("tinker://run/sampler_weights/")
    assert len(service.bodies("save_weights_for_sampler")) == 1


def test_the_engine_of_script_3_samples_as_asked(service, tmp_path, monkeypatch):
    """Given a model whose tokenizer is here, when samples are asked for, then texts come back for each of them."""
    import tinker_service as served
    from vllm_env.tiny_model import make_tiny_model

    from tuner.learn_to_ask.engines.base import Request, Sampling
    from tuner.learn_to_ask.engines.tinker import TinkerEngine

    model = str(make_tiny_model(tmp_path / "model"))
    monkeypatch.setattr(served, "MODEL", model)
    engine = TinkerEngine(model, seed=5)
    requests = [Request(key=key, messages=[{"role": "user", "content": "it hurts"}]) for key in range(2)]

    replies = list(engine.generate(requests, Sampling(temperature=1.0, top_p=0.9, max_tokens=5, n=3)))

    assert sorted((reply.key, len(reply.texts)) for reply in replies) == [(0, 3), (1, 3)]
    asked = service.bodies("asample")
    assert [found["num_samples"] for found in asked] == [3, 3]
    assert len({found["sampling_params"]["seed"] for found in asked}) == 2
    engine.close()
