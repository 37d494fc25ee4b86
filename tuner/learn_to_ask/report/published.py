"""The published results, shown beside one's own for reference (spec section 8)."""

from collections.abc import Mapping

# Column -> metric -> value.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "base Qwen2.5-7B-Instruct": {
        "continue_content": 0.436,
        "continue_content_win_rate": 0.122,
        "continue_decision_accuracy": 0.963,
        "stop_decision_accuracy": 0.024,
        "total_decision_accuracy": 0.467,
        "response_format_quality": 0.376,
        "total_reward": 1.281,
    },
    "Trinity, direct": {
        "continue_content": 0.496,
        "continue_content_win_rate": 0.246,
        "continue_decision_accuracy": 0.909,
        "stop_decision_accuracy": 0.927,
        "total_decision_accuracy": 0.918,
        "response_format_quality": 0.713,
        "total_reward": 3.078,
    },
    "AgentScope-Tuner, ReAct": {
        "continue_content": 0.509,
        "continue_content_win_rate": 0.224,
        "continue_decision_accuracy": 0.922,
        "stop_decision_accuracy": 0.909,
        "total_decision_accuracy": 0.915,
        "response_format_quality": 0.882,
        "total_reward": 3.237,
    },
}
PUBLISHED_NOTE = "Published on other data (RealMedConv, graded by Qwen2.5-32B-Instruct); for reference only."
