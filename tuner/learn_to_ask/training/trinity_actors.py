"""Trinity's explorer and trainer, with what a run needs that is killed, resumed or fails in mid-step."""

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import ray
import trinity.explorer.explorer
import trinity.explorer.scheduler
import trinity.trainer.trainer
from trinity.common.constants import RunningStatus, SyncMethod
from trinity.explorer.explorer import Explorer
from trinity.explorer.scheduler import RunnerWrapper
from trinity.trainer.trainer import Trainer

from tuner.learn_to_ask.training.money import Money, Tokens, could_exceed, note_step, read_spent
from tuner.learn_to_ask.training.resume import last_checkpoint

_LIVES = 3  # of a runner for one task


class LastingRunner(RunnerWrapper):  # type: ignore[misc]  # Trinity has no type hints
    """Rolls out tasks in a Ray actor; when that is killed, as Ray does where memory runs short, in a new one.

    Trinity goes on asking a dead actor: its task is lost, and the step waits for it until the timeout of a whole batch.
    """

    async def run_with_retry(self, *task: Any, **more: Any) -> tuple[Any, ...]:
        """Runs a task as Trinity does, in a new actor where the old one is dead."""
        await self._replace_dead()
        for _ in range(_LIVES):
            outcome: tuple[Any, ...] = await super().run_with_retry(*task, **more)
            status = outcome[0]
            if status.ok or not await self._replace_dead():
                break
        return outcome

    async def _replace_dead(self) -> bool:
        """Makes a new actor where the old one is dead; says whether it was."""
        try:
            await self.runner.__ray_ready__.remote()
        except ray.exceptions.RayActorError as error:
            self.logger.warning(f"Runner {self.runner_id} is replaced, it has died: {error}")
            await self.restart_runner()
            return True
        return False


class LearnerExplorer(Explorer):  # type: ignore[misc]  # Trinity has no type hints
    """Rolls out; its engines find the run's own cluster, and when it fails the trainer does not wait for it."""

    on_sigterm: ClassVar[Callable[[], None] | None] = None  # of main.py's process, where the actors are made
    money: ClassVar[Money] = Money()  # likewise; the actor is handed it

    @classmethod
    def get_actor(cls, config: Any) -> Any:
        """Makes the actor; called in main.py's process right after Ray is up.

        vLLM's engine core is a process that Ray does not start: it looks for its cluster by RAY_ADDRESS, and without
        it takes whatever cluster it finds on the machine, or starts one.
        """
        if cls.on_sigterm is not None:
            _take_sigterm(cls.on_sigterm)  # ray.init() has just put its own handler there
        address = ray.get_runtime_context().gcs_address
        options = {"name": config.explorer.name, "namespace": config.ray_namespace}
        actor = ray.remote(cls).options(**options, runtime_env={"env_vars": {"RAY_ADDRESS": address}})
        return actor.remote(config, cls.money)

    def __init__(self, config: Any, money: Money | None = None) -> None:
        """Takes the config; runs in the actor, whose scheduler is to make runners that last."""
        trinity.explorer.scheduler.RunnerWrapper = LastingRunner
        super().__init__(config)
        self._money = money or Money()
        self._folder = Path(config.checkpoint_job_dir)
        self.monitor: Any = CostMonitor(self.monitor, self._money, self._folder)

    async def explore_step(self) -> bool:
        """Begins a step, or ends as at the end of the data where it could cost more than the budget.

        What is rolled out is then trained on and saved.
        """
        under_way = self.explore_step_num - self.last_monitored_step
        if under_way and could_exceed(self._money, read_spent(self._folder), steps=under_way + 1):
            await self.finish_current_steps()  # to see what they came to
            under_way = 0
        if could_exceed(self._money, read_spent(self._folder), steps=under_way + 1):
            self.logger.info(f"Step {self.explore_step_num + 1} could cost more than --max_usd leaves: none is begun.")
            self.taskset: Any = NoMoreTasks(self.taskset)
        more: bool = await super().explore_step()
        return more

    async def explore(self) -> str:
        """Explores until the end of the data or until something fails.

        Trinity's explorer breaks off without a word to the trainer, which then waits for data until it gives up.
        """
        name: str = await super().explore()
        if self.scheduler is not None:  # only left standing when it broke off
            requires_sync = await self.synchronizer.explorer_requires_sync.remote()
            status = RunningStatus.REQUIRE_SYNC if requires_sync else RunningStatus.RUNNING
            await self.synchronizer.set_explorer_status.remote(RunningStatus.STOPPED, old_status=status)
            await self.shutdown()  # closes the queue of rollouts: the trainer saves and ends
        return name


class CostMonitor:
    """Trinity's monitor of the explorer, with what each step costs; keeps the ledger of the run."""

    def __init__(self, monitor: Any, money: Money, folder: Path) -> None:
        self._monitor = monitor
        self._money = money
        self._folder = folder

    def log(self, data: dict[str, Any], step: int, **more: Any) -> None:
        """Logs a step of which the tokens were counted with what they cost."""
        tokens = Tokens.of_metrics(data)
        if tokens is not None:
            parts = tokens.usd(self._money.prices)
            note_step(self._folder, step, tokens, sum(parts.values()))
            costs = {f"money/{name}_usd": usd for name, usd in parts.items()}
            data = {**data, **costs, "money/total_usd": read_spent(self._folder).usd}
        self._monitor.log(data, step=step, **more)

    def __getattr__(self, name: str) -> Any:
        """All else is Trinity's."""
        return getattr(self._monitor, name)


class NoMoreTasks:
    """A task set that has come to its end before its data have."""

    def __init__(self, taskset: Any) -> None:
        self._taskset = taskset

    async def read_async(self) -> Any:
        """There is nothing to read.

        Raises:
            StopAsyncIteration: Always.
        """
        raise StopAsyncIteration

    def __getattr__(self, name: str) -> Any:
        """All else is as it was."""
        return getattr(self._taskset, name)


class LearnerTrainer(Trainer):  # type: ignore[misc]  # Trinity has no type hints
    """Trains; counts a step when it is done, and goes on from a checkpoint with every way of syncing weights."""

    _saved_step = 0  # of the last checkpoint that this start has begun to write

    async def prepare(self) -> None:
        """Loads the last checkpoint and puts its weights where the engines look for them first.

        Both sides start with a weight sync. Left alone, the trainer would say "none" with `checkpoint`, on which the
        engines fail, and with `memory` often be too late, so that the first rollouts would come from the base model.
        `nccl` syncs the two directly.
        """
        await super().prepare()
        if not self.train_step_num or self.config.trainer.trainer_type != "verl":
            return
        if self.sync_method == SyncMethod.CHECKPOINT:
            from trinity.common.models.utils import get_checkpoint_dir_with_step_num, load_state_dict

            await self.engine.save_state_dict()  # the first call only says "none", from now on it saves
            folder, step = get_checkpoint_dir_with_step_num(
                checkpoint_root_path=self.config.checkpoint_job_dir,
                trainer_type=self.config.trainer.trainer_type,
                step_num=self.train_step_num,
            )
            weights = load_state_dict(os.path.join(folder, "actor"), self.config.trainer)  # noqa: PTH118  # a text
            await self.synchronizer.set_model_state_dict.remote(weights, step)
        elif self.sync_method == SyncMethod.MEMORY:
            await self.engine.upload_state_dict()

    async def save_checkpoint(self, block_until_saved: bool = False, save_as_hf: bool = False) -> dict[str, Any]:
        """Saves, after a look at what became of the checkpoint before.

        verl writes in threads whose errors nobody hears: on a full disk a run would train on without being saved.

        Raises:
            RuntimeError: When the checkpoint before was not written to its end.
        """
        if self.config.trainer.trainer_type == "verl":
            self._require_saved()
        metrics: dict[str, Any] = await super().save_checkpoint(block_until_saved, save_as_hf)
        self._saved_step = self.train_step_num
        return metrics

    def _require_saved(self) -> None:
        """Waits for the threads of the checkpoint before, and looks for its number where it is noted last."""
        step = self._saved_step
        if not step or step == self.train_step_num:  # saved again at the end of a run, in another format
            return
        self.engine.actor_rollout_wg.wait_on_save_thread()
        reached = last_checkpoint(Path(self.config.checkpoint_job_dir))
        if reached < step:
            raise RuntimeError(
                f"the checkpoint of step {step} was not written, the last whole one is of step {reached}"
            )

    async def _sample_data(self) -> Any:
        """Samples a batch; the end of the data arrives wrapped up and would be logged as an error."""
        try:
            return await super()._sample_data()
        except RuntimeError as error:
            if isinstance(error.__cause__, StopAsyncIteration):
                raise StopAsyncIteration("the explorer has ended") from None
            raise

    async def train_step(self, exps: list[Any]) -> dict[str, Any]:
        """Trains one step.

        Trinity counts before it trains: a step that failed would be saved as done and its tasks never be trained on.
        """
        step = self.train_step_num
        try:
            metrics: dict[str, Any] = await super().train_step(exps)
        except Exception:
            counter = "global_steps" if hasattr(self.engine, "global_steps") else "_train_step_num"
            setattr(self.engine, counter, step)
            self.logger.error(f"Step {step + 1} failed and does not count:\n{traceback.format_exc()}")
            raise
        return metrics


@contextmanager
def in_place_of_trinitys(on_sigterm: Callable[[], None], money: Money) -> Iterator[None]:
    """Has Trinity's launcher start these two instead of its own.

    Args:
        on_sigterm: Called when this process is told to end; it is not to return.
        money: Prices and budget of the run.
    """
    LearnerExplorer.on_sigterm, LearnerExplorer.money = on_sigterm, money
    trinity.explorer.explorer.Explorer, trinity.trainer.trainer.Trainer = LearnerExplorer, LearnerTrainer
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        trinity.explorer.explorer.Explorer, trinity.trainer.trainer.Trainer = Explorer, Trainer
        LearnerExplorer.on_sigterm, LearnerExplorer.money = None, Money()
        signal.signal(signal.SIGTERM, before)


def _take_sigterm(action: Callable[[], None]) -> None:
    """Sets the handler of SIGTERM."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        action()

    signal.signal(signal.SIGTERM, handle)
