"""What `--eval_model_path` may name, and what is made of it: paths alone, without a model."""

import json
from pathlib import Path

import pytest

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_source import CONVERTED, find_model

SAMPLER = "tinker://a1b2/sampler_weights/step-20"


def touch(folder, *names):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    return folder


def hugging_face(folder):
    return touch(folder, "config.json", "tokenizer.json", "model.safetensors")


def shards(folder, world=2):
    """What Trinity saves when it saves no export: shards, and the model's config and tokenizer without weights."""
    touch(folder, "actor/huggingface/config.json", "actor/huggingface/tokenizer.json")
    touch(folder, *(f"actor/model_world_size_{world}_rank_{rank}.pt" for rank in range(world)))
    (folder / "actor" / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world}))
    return folder


def adapter(folder, base, **config):
    touch(folder, "adapter_model.safetensors")
    known = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(known))
    return folder


def find(path):
    return find_model(str(path), flag="--eval_model_path")


def error_of(path):
    with pytest.raises(UserError) as error:
        find(path)
    message = str(error.value)
    assert message.startswith(f"--eval_model_path {path}: ")
    return message


# Models


@pytest.mark.parametrize("given", ["Qwen/Qwen2.5-7B-Instruct", "gpt2", SAMPLER])
def test_a_hub_id_and_a_tinker_path_stay_as_they_are(given):
    source = find(given)
    assert (source.model, source.name, source.explanation) == (given, given, "")
    assert source.tinker == (given == SAMPLER)


def test_a_hugging_face_folder_stays_as_it_is(tmp_path):
    source = find(hugging_face(tmp_path / "model"))
    assert source.model == source.name == str(tmp_path / "model")
    assert not source.explanation


def test_a_hugging_face_folder_that_lacks_files_is_refused_with_their_names(tmp_path):
    touch(tmp_path, "config.json", "tokenizer.json", "model.safetensors.index.json")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    assert "weights (*.safetensors or *.bin), model-1.safetensors" in error_of(tmp_path)


# Runs and checkpoints


def test_a_run_stands_for_its_latest_checkpoint(tmp_path):
    # Given a run whose latest checkpoint is step 9 by its own note; step 10 was cut off in the middle
    for step in (8, 9, 10):
        hugging_face(tmp_path / f"global_step_{step}" / "actor" / "huggingface")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("9")
    source = find(tmp_path)
    assert source.model == str(tmp_path / "global_step_9" / "actor" / "huggingface")
    assert source.name == f"{tmp_path}, step 9"
    assert source.explanation == f"step 9, {source.model}"


def test_without_a_note_the_highest_step_counts_as_a_number(tmp_path):
    for step in (9, 10):
        hugging_face(tmp_path / f"global_step_{step}" / "actor" / "huggingface")
    assert find(tmp_path).step == 10


def test_a_note_of_a_checkpoint_that_was_deleted_or_holds_no_weights_leads_to_the_one_before(tmp_path):
    hugging_face(tmp_path / "global_step_10" / "actor" / "huggingface")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    (tmp_path / "latest_state_dict_iteration.txt").write_text("20")
    assert find(tmp_path).step == 10
    touch(tmp_path / "global_step_20", "critic/model.pt")
    assert find(tmp_path).step == 10


def test_a_newer_checkpoint_changes_the_name_that_goes_into_fingerprints(tmp_path):
    hugging_face(tmp_path / "global_step_1" / "actor" / "huggingface")
    before = find(tmp_path).name
    hugging_face(tmp_path / "global_step_2" / "actor" / "huggingface")
    assert find(tmp_path).name != before


def test_an_export_inside_a_checkpoint_is_used_before_anything_is_converted(tmp_path):
    folder = shards(tmp_path / "global_step_3")
    hugging_face(folder / "actor" / "huggingface")
    source = find(folder)
    assert source.model == str(folder / "actor" / "huggingface")
    assert source.shards is None


@pytest.mark.parametrize("part", ["", "actor", "actor/huggingface"])
def test_shards_beside_a_config_without_weights_are_to_be_converted_wherever_the_path_points(tmp_path, part):
    folder = shards(tmp_path / "global_step_3")
    source = find(folder / part)
    assert source.shards.samefile(folder / "actor")
    assert Path(source.model) == source.shards / CONVERTED
    assert source.step == 3
    assert "step 3, shards in" in source.explanation


def test_missing_shards_are_named(tmp_path):
    folder = shards(tmp_path / "global_step_3", world=4)
    (folder / "actor" / "model_world_size_4_rank_2.pt").unlink()
    message = error_of(folder)
    assert "model_world_size_4_rank_2.pt" in message
    assert "rank_1" not in message


def test_shards_of_an_earlier_run_on_other_gpus_in_the_same_folder_do_no_harm(tmp_path):
    folder = shards(tmp_path / "global_step_3", world=2)
    touch(folder, "actor/model_world_size_8_rank_0.pt")
    assert find(folder).shards


@pytest.mark.parametrize("missing", ["fsdp_config.json", "huggingface/config.json"])
def test_what_the_converter_needs_besides_the_shards_is_named_when_it_is_missing(tmp_path, missing):
    folder = shards(tmp_path / "global_step_3")
    (folder / "actor" / missing).unlink()
    assert missing in error_of(folder)


def test_megatron_checkpoints_go_to_the_converter_too(tmp_path):
    folder = touch(tmp_path / "global_step_3", "actor/huggingface/config.json", "actor/dist_ckpt/metadata.json")
    assert find(folder).shards == folder / "actor"


# Tinker


def test_a_tinker_run_leads_to_its_newest_sampler_weights(tmp_path):
    # Given a run that saved its state at step 10 and has since synchronised step 20; the service keeps the newest only
    touch(tmp_path / "global_step_10", "remote_sampler_path.txt", "remote_checkpoint_path.txt")
    touch(tmp_path / "global_step_20", "remote_sampler_path.txt")
    (tmp_path / "global_step_20" / "remote_sampler_path.txt").write_text(f"{SAMPLER}\n")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    (tmp_path / "latest_state_dict_iteration.txt").write_text("20")
    source = find(tmp_path)
    assert source.model == SAMPLER
    assert source.tinker
    assert source.name == f"{SAMPLER} ({tmp_path}, step 20)"


def test_a_tinker_state_without_sampler_weights_is_told_apart(tmp_path):
    touch(tmp_path / "global_step_10", "remote_checkpoint_path.txt")
    message = error_of(tmp_path)
    assert "global_step_10" in message
    assert "remote_sampler_path.txt" in message


# Adapters


@pytest.mark.parametrize("place", ["adapter", "global_step_7/actor/lora_adapter"])
def test_an_adapter_is_laid_over_the_base_model_that_it_names(tmp_path, place):
    base = hugging_face(tmp_path / "base")
    folder = adapter(tmp_path / place, str(base), rank_pattern={"q_proj": 24})
    source = find(folder)
    assert source.model == str(base)
    assert (source.adapter.folder, source.adapter.rank, source.adapter.tokenizer) == (str(folder), 24, False)
    assert source.explanation.endswith(f"LoRA adapter {folder} on {base}")


def test_a_lora_checkpoint_uses_the_adapter_not_its_shards_which_the_converter_cannot_merge(tmp_path):
    folder = shards(tmp_path / "run" / "global_step_7")
    adapter(folder / "actor" / "lora_adapter", "Qwen/Qwen2.5-7B-Instruct")
    source = find(tmp_path / "run")
    assert source.shards is None
    assert source.model == "Qwen/Qwen2.5-7B-Instruct"
    assert source.adapter.folder == str(folder / "actor" / "lora_adapter")
    assert source.step == 7


def test_an_adapter_with_a_tokenizer_of_its_own_says_so(tmp_path):
    folder = adapter(tmp_path / "adapter", "org/base")
    touch(folder, "tokenizer.json")
    assert find(folder).adapter.tokenizer


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"base_model_name_or_path": None}, "base_model_name_or_path is empty"),
        ({"base_model_name_or_path": "/no/such/base"}, "base_model_name_or_path /no/such/base: no such folder"),
        ({"base_model_name_or_path": SAMPLER}, "no plain Hugging Face model"),
        ({"peft_type": "PREFIX_TUNING"}, "only LORA"),
        ({"r": "many"}, "no LoRA configuration"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused_with_the_key_at_fault(tmp_path, config, named):
    assert named in error_of(adapter(tmp_path / "adapter", "org/base", **config))


def test_an_adapter_without_weights_is_refused(tmp_path):
    folder = adapter(tmp_path / "adapter", "org/base")
    (folder / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors" in error_of(folder)


# Neither


def test_a_folder_that_is_none_of_these_is_refused_with_what_was_looked_for_and_what_is_there(tmp_path):
    touch(tmp_path, "notes.txt", "log/train.log")
    message = error_of(tmp_path)
    for looked_for in ("config.json", "adapter_config.json", "global_step_*", "remote_sampler_path.txt", "actor/"):
        assert looked_for in message
    assert message.endswith("There is: log/, notes.txt")


def test_an_empty_checkpoint_is_refused_with_what_is_there(tmp_path):
    touch(tmp_path / "global_step_5", "critic/model_world_size_1_rank_0.pt")
    assert error_of(tmp_path).endswith("There is: critic/")


def test_a_file_and_a_folder_that_does_not_exist_are_told_apart(tmp_path):
    (tmp_path / "model.gguf").write_text("x")
    assert "is a file" in error_of(tmp_path / "model.gguf")
    assert "no such folder" in error_of(tmp_path / "missing")
