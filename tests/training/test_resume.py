"""What a killed run goes on from, and what it refuses to go on with."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.training.config_file import RunConfig
from tuner.learn_to_ask.training.resume import check_same_run, identity, last_checkpoint, only_run, record, rewind
from tuner.learn_to_ask.training.settings import TrainingSettings

ROOT = Path(__file__).resolve().parents[2]

ALGORITHM = {"kl_loss_fn": "k2", "optimizer": {"weight_decay": 0.1}}


@pytest.fixture
def job(tmp_path):
    """A run on Tinker that was killed in step 8 after checkpoints at 3 and 6; weights are synced every step."""
    folder = tmp_path / "job"
    for step in range(1, 9):
        checkpoint = folder / f"global_step_{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "remote_sampler_path.txt").write_text(f"tinker://sampler-{step}")
        if step in (3, 6):
            (checkpoint / ".full_checkpoint").touch()
            (checkpoint / "remote_checkpoint_path.txt").write_text(f"tinker://state-{step}")
    (folder / "latest_checkpointed_iteration.txt").write_text("6")
    (folder / "latest_state_dict_iteration.txt").write_text("8")
    (folder / "explorer_meta.json").write_text('{"latest_iteration": 8, "taskset_states": [{"current_index": 32}]}')
    return folder


def who(tmp_path, *, raw=None, tasks="{}", **settings):
    """The identity of a run."""
    file = tmp_path / "train.jsonl"
    file.write_text(tasks)
    config = RunConfig(
        raw=raw or {}, resolved=raw or {}, tinker=False, base_url=None, ray_address=None, job_folder=tmp_path / "job"
    )
    return identity(dataclasses.replace(TrainingSettings(), **settings), config, file)


def test_the_last_checkpoint_is_the_one_trinity_wrote_last(job):
    assert last_checkpoint(job) == 6


@pytest.mark.parametrize("cut_off", ["", "\n", "garbage"])
def test_a_step_file_that_a_kill_left_empty_is_made_up_for_by_the_newest_whole_checkpoint(job, cut_off):
    # Given: step 9 was being saved, its path had not been written yet.
    (job / "latest_checkpointed_iteration.txt").write_text(cut_off)
    (job / "global_step_9").mkdir()
    (job / "global_step_9" / ".full_checkpoint").touch()
    (job / "global_step_9" / "remote_checkpoint_path.txt").touch()

    assert last_checkpoint(job) == 6
    assert rewind(job, batch_size=4) == 6
    assert (job / "latest_checkpointed_iteration.txt").read_text() == "6"


def test_the_explorer_goes_back_to_the_task_after_the_last_checkpoint(job):
    # By hand: six steps of four tasks were trained on, so the next task is number 24.
    assert rewind(job, batch_size=4) == 6

    state = json.loads((job / "explorer_meta.json").read_text())
    assert state == {"latest_iteration": 6, "taskset_states": [{"current_index": 24}]}


def test_engines_that_read_weights_from_checkpoints_go_back_too(job):
    # Given: a run on GPUs, whose checkpoints hold the weights themselves.
    for step in (3, 6):
        (job / f"global_step_{step}" / "remote_checkpoint_path.txt").unlink()

    rewind(job, batch_size=4)

    assert (job / "latest_state_dict_iteration.txt").read_text() == "6"


def test_on_tinker_the_weights_stay_until_the_service_has_made_them_fit_for_sampling(job):
    rewind(job, batch_size=4)

    assert (job / "latest_state_dict_iteration.txt").read_text() == "8"


def test_without_a_checkpoint_everything_starts_again(job):
    (job / "latest_checkpointed_iteration.txt").unlink()

    assert rewind(job, batch_size=4) == 0

    assert not list(job.glob("*_meta.json"))
    assert not (job / "latest_state_dict_iteration.txt").exists()


def test_a_new_folder_is_a_new_run(tmp_path):
    assert last_checkpoint(tmp_path / "none") == 0
    assert rewind(tmp_path / "none", batch_size=4) == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_path": "other"}, r"--model_path was Qwen/Qwen2.5-7B-Instruct, is now other"),
        ({"batch_size": 32}, r"--batch_size was 64, is now 32"),
        ({"group_size": 8}, r"--group_size was 5, is now 8"),
        ({"train_mode": "Ra", "fusion_mode": "sum"}, r"--fusion_mode was default, is now sum; --train_mode was"),
        ({"grader": "openai"}, r"--grader was auxiliary, is now openai"),
        ({"tasks": "{} "}, r"--data was content \w+, is now content \w+"),
        ({"raw": {"algorithm": {"optimizer": {"weight_decay": 0.0}}}}, r"algorithm.kl_loss_fn was k2, is now None"),
        ({"raw": {"algorithm": ALGORITHM, "model": {"tinker": {"rank": 8}}}}, r"model.tinker.rank was None, is now 8"),
    ],
)
def test_settings_that_decide_what_is_learned_may_not_change_and_are_named(job, tmp_path, changes, named):
    record(job, who(tmp_path, raw={"algorithm": ALGORITHM}))

    with pytest.raises(UserError, match=named) as error:
        check_same_run(job, who(tmp_path, **{"raw": {"algorithm": ALGORITHM}, **changes}))

    assert "step 6" in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"inference_engine_num": 2, "tensor_parallel_size": 2},
        {"total_epochs": 8},
        {"total_steps": 500},
        {"save_interval_steps": 10},
        {
            "raw": {
                "algorithm": ALGORITHM,
                "explorer": {"runner_per_model": 2},
                "trainer": {"max_checkpoints_to_keep": 3},
            }
        },
    ],
)
def test_where_how_fast_and_how_long_it_runs_may_change(job, tmp_path, changes):
    record(job, who(tmp_path, raw={"algorithm": ALGORITHM}))

    check_same_run(job, who(tmp_path, **{"raw": {"algorithm": ALGORITHM}, **changes}))


def test_before_the_first_checkpoint_anything_may_change(job, tmp_path):
    record(job, who(tmp_path))
    (job / "latest_checkpointed_iteration.txt").unlink()

    check_same_run(job, who(tmp_path, batch_size=1))


def test_data_that_moved_are_the_same_data(job, tmp_path):
    record(job, who(tmp_path))

    check_same_run(job, who(tmp_path, data=Path("elsewhere")))


def test_two_runs_of_one_name_never_run_at_once(tmp_path):
    """Given a run under way in another process, when a second one starts, then it is refused; a kill lets go."""
    hold = (
        "import sys, time; from pathlib import Path; from tuner.learn_to_ask.training.resume import only_run\n"
        "with only_run(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="a run of this name is under way"), only_run(tmp_path):
            pass
        first.kill()
        first.wait()
    with only_run(tmp_path):
        pass
