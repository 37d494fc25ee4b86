"""Every number of the two quickstarts: the tiny policy that is built on the spot, and a pretrained model."""

import json
from dataclasses import dataclass

from tuner.learn_to_ask.quickstart.base_policy import BasePolicyConfig
from tuner.learn_to_ask.quickstart.warm_start import WarmStartConfig

TOY, SMOLLM2 = "toy", "smollm2"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyNumbers:
    """What a quickstart does with its policy, and how long that takes on two cores.

    Attributes:
        base: How the policy comes to be: built on the spot, or warmed up.
        steps: GRPO steps, unless told otherwise.
        tasks: Tasks a step.
        group_size: Rollouts of a task.
        learning_rate: Of the LoRA weights; a tiny model takes a large one.
        max_model_len: Longest prompt with its response, in tokens.
        max_tokens: Longest response.
        save_interval: Steps between two checkpoints that an interrupted run goes on from.
        evaluated_sessions: Sessions of the test split that the evaluation takes, `None` for all.
        interview_turns: Questions after which an interview is broken off; the logged doctors ask in up to 3.
        rollout_seconds: After which a rollout is given up.
        lora_rank: Of the LoRA weights.
        runners: Processes that each roll out one group at a time.
        sequences: Rollouts that the engine samples at a time; a batch costs the same whether it is full or not.
        micro_batch: Sequences of one pass of the update.
        shortest_bucket: Tokens that the engine pads every prompt to; the sample logs' longest has 170 of the tiny
            tokenizer's, 235 of SmolLM2's.
        base_title: What the base policy is.
        base_time: Of the base policy, in words.
        evaluation_time: Of the base policy's evaluation, in words.
        training_time: In words.
        tuned_time: Of the tuned policy's evaluation, in words.
    """

    base: BasePolicyConfig | WarmStartConfig
    steps: int
    tasks: int
    group_size: int
    learning_rate: float
    max_model_len: int
    max_tokens: int
    save_interval: int
    evaluated_sessions: int | None
    interview_turns: int
    rollout_seconds: int
    lora_rank: int
    runners: int
    sequences: int
    micro_batch: int
    shortest_bucket: int
    base_title: str
    base_time: str
    evaluation_time: str
    training_time: str
    tuned_time: str

    def grpo_flags(self, steps: int) -> list[str]:
        """The flags of main.py.

        Args:
            steps: GRPO steps.
        """
        return [
            f"--total_steps={steps}",
            f"--batch_size={self.tasks}",
            f"--group_size={self.group_size}",
            f"--learning_rate={self.learning_rate}",
            f"--max_model_len={self.max_model_len}",
            f"--max_tokens={self.max_tokens}",
            "--inference_engine_num=1",
            f"--save_interval_steps={self.save_interval}",
        ]

    def engine_flags(self) -> list[str]:
        """The flags of SkyRL's Tinker service."""
        backend = {
            "max_lora_adapters": 2,
            "max_lora_rank": self.lora_rank,
            "train_micro_batch_size": self.micro_batch,
            "sample_max_num_sequences": self.sequences,
        }
        # The tuned weights must outlive the training client.
        return [
            "--session-cleanup-interval-sec=-1",
            f"--backend-config={json.dumps(backend)}",
            f"--shortest-bucket={self.shortest_bucket}",
        ]


TOY_NUMBERS = PolicyNumbers(
    base=BasePolicyConfig(),
    steps=16,
    tasks=8,
    group_size=8,
    learning_rate=1e-3,
    max_model_len=512,
    max_tokens=48,
    save_interval=1000,
    evaluated_sessions=None,
    interview_turns=8,
    rollout_seconds=300,
    lora_rank=16,
    runners=2,
    sequences=16,
    micro_batch=16,
    shortest_bucket=192,
    base_title="a tiny Qwen3 imitates a doctor who stops badly",
    base_time="about 90 s",
    evaluation_time="about 90 s",
    training_time="about 90 s and 22 s a step",
    tuned_time="about 60 s",
)

PRETRAINED_NUMBERS = PolicyNumbers(
    base=WarmStartConfig(),
    steps=16,
    tasks=4,
    group_size=4,
    learning_rate=1e-3,
    max_model_len=512,
    max_tokens=64,
    save_interval=4,
    evaluated_sessions=40,
    interview_turns=8,
    rollout_seconds=1800,
    lora_rank=16,
    runners=4,
    sequences=16,
    micro_batch=8,
    shortest_bucket=256,
    base_title="a pretrained model imitates a doctor who stops badly",
    base_time="3 to 10 minutes",
    evaluation_time="8 to 20 minutes",
    training_time="1.5 to 3 minutes a step",
    tuned_time="8 to 15 minutes",
)
