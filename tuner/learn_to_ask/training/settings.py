"""The settings of a training run that tune() takes as arguments: one field, one flag each."""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from tuner.learn_to_ask.core.reward import FUSION_MODES, TRAIN_MODES, FusionMode, TrainMode
from tuner.learn_to_ask.domains import DEFAULT
from tuner.learn_to_ask.training.grader import GRADERS, Grader, GraderSettings

FULL_LEARNING_RATE = 5e-7  # of the published run, which trains the whole policy
LORA_LEARNING_RATE = 5e-6  # ten times that, since LoRA takes larger steps to get as far


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Everything tune() takes as an argument; each field is a flag. The defaults are the published run."""

    # policy
    model_path: str = "Qwen/Qwen2.5-7B-Instruct"
    max_model_len: int = 8192
    max_tokens: int = 1024
    temperature: float = 1.0
    tensor_parallel_size: int = 1
    inference_engine_num: int = 4
    # grader
    grader: Grader = "auxiliary"
    auxiliary_model_path: str = "Qwen/Qwen2.5-32B-Instruct"
    auxiliary_tensor_parallel_size: int = 2
    auxiliary_engine_num: int = 1
    grader_temperature: float = 0.7
    grader_base_url: str = ""
    grader_model: str = ""
    grader_api_key_env: str = "OPENAI_API_KEY"
    grader_extra_json: str = ""
    # data
    data: Path = Path("tuner/learn_to_ask/data")
    domain: str = DEFAULT
    total_epochs: int = 4
    total_steps: int | None = None
    # reward
    train_mode: TrainMode = "Ra+Rs"
    fusion_mode: FusionMode = "default"
    # GRPO
    group_size: int = 5
    learning_rate: float | None = None
    batch_size: int = 64
    save_interval_steps: int = 90

    def resolved_learning_rate(self, *, tinker: bool) -> float:
        """The learning rate of a run: the one given, else the default of what is trained.

        Args:
            tinker: LoRA weights on a Tinker service instead of the whole policy.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return LORA_LEARNING_RATE if tinker else FULL_LEARNING_RATE

    def grader_settings(self, rollout_seconds: float = 600.0) -> GraderSettings:
        """The grader's share.

        Args:
            rollout_seconds: Longest time for a group of rollouts, of which grading gets half.
        """
        return GraderSettings(
            grader=self.grader,
            temperature=self.grader_temperature,
            max_tokens=self.max_tokens,
            seconds=rollout_seconds / 2,
            base_url=self.grader_base_url,
            model=self.grader_model,
            api_key_env=self.grader_api_key_env,
            extra_json=self.grader_extra_json,
        )


_HELP = {
    "model_path": "the policy: a local folder, a hub id or a model that Tinker offers",
    "max_model_len": "longest prompt and response together, in tokens",
    "max_tokens": "longest response of policy and grader, in tokens",
    "temperature": "of the policy's rollouts",
    "tensor_parallel_size": "GPUs of one rollout engine",
    "inference_engine_num": "rollout engines",
    "grader": "auxiliary: an LLM beside the policy; openai: any compatible endpoint, which frees the auxiliary GPUs; "
    "offline: rules instead of a model, for trying the pipeline out",
    "auxiliary_model_path": "the grader's model",
    "auxiliary_tensor_parallel_size": "GPUs of one grader engine",
    "auxiliary_engine_num": "grader engines",
    "grader_temperature": "of the grader",
    "grader_base_url": "of the openai grader, up to and including /v1; several of one model are separated by spaces",
    "grader_model": "name under which the openai grader's endpoint offers the model",
    "grader_api_key_env": "environment variable with the openai grader's key; must be set where Ray's workers run",
    "grader_extra_json": "fields to add to the openai grader's requests or, with null, to leave out, as a JSON object: "
    '\'{"enable_thinking": false, "top_p": null}\'',
    "data": "folder with train.jsonl of script 2 (or .jsonl.gz, .jsonl.zst, .parquet), or the file itself",
    "domain": "YAML file of the field that the interviews are about, or the name of one that comes with the package",
    "total_epochs": "passes over the data",
    "total_steps": "training steps; overrides --total_epochs",
    "train_mode": "Ra+Rs: questions and stopping; Ra: questions only; Rs: stopping only",
    "fusion_mode": "how Ra+Rs combines the scores: default gates by the decision, sum adds them up",
    "group_size": "rollouts of each task, GRPO's group",
    "learning_rate": f"of the policy (default: {FULL_LEARNING_RATE:g}; on Tinker, which trains LoRA weights, "
    f"{LORA_LEARNING_RATE:g}: they want about ten times more)",
    "batch_size": "tasks a step",
    "save_interval_steps": "steps between two checkpoints",
}
_TYPES = {"total_steps": int, "learning_rate": float}  # of the flags whose default is None
_CHOICES = {"grader": GRADERS, "train_mode": TRAIN_MODES, "fusion_mode": FUSION_MODES}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each field of `TrainingSettings`."""
    for field in dataclasses.fields(TrainingSettings):
        parser.add_argument(
            f"--{field.name}",
            type=_TYPES.get(field.name, type(field.default)),
            default=field.default,
            choices=_CHOICES.get(field.name),
            help=_HELP[field.name],
        )
