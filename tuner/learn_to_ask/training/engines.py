"""What tune() is told of the engines of policy and grader."""

from typing import TYPE_CHECKING, Any

from tuner.learn_to_ask.training.config_file import RunConfig
from tuner.learn_to_ask.training.grader import AUXILIARY_MODEL_NAME
from tuner.learn_to_ask.training.settings import TrainingSettings

if TYPE_CHECKING:
    from agentscope.tuner import TunerModelConfig


def engines_of(settings: TrainingSettings, config: RunConfig) -> "tuple[TunerModelConfig, dict[str, TunerModelConfig]]":
    """The engine of the policy, and the graders by name."""
    from agentscope.tuner import TinkerConfig, TunerModelConfig

    class EngineConfig(TunerModelConfig):  # type: ignore[misc]  # AgentScope counts as untyped here
        """Takes along what config.yaml says of an engine, for which tune() has no argument."""

        more: dict[str, Any]

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), **self.more}

    EngineConfig.model_rebuild(_types_namespace={"TinkerConfig": TinkerConfig})
    policy_engine, grader_engine = config.engines
    policy = EngineConfig(
        model_path=settings.model_path,
        max_model_len=settings.max_model_len,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        tensor_parallel_size=settings.tensor_parallel_size,
        inference_engine_num=settings.inference_engine_num,
        reasoning_parser="",  # the default files all that Qwen2.5 says under reasoning and leaves no content
        more=policy_engine,
    )
    graders = {}
    if settings.grader == "auxiliary":
        graders[AUXILIARY_MODEL_NAME] = EngineConfig(
            model_path=settings.auxiliary_model_path,
            max_model_len=settings.max_model_len,
            max_tokens=settings.max_tokens,
            temperature=settings.grader_temperature,
            tensor_parallel_size=settings.auxiliary_tensor_parallel_size,
            inference_engine_num=settings.auxiliary_engine_num,
            reasoning_parser="",
            more=grader_engine,
        )
    return policy, graders
