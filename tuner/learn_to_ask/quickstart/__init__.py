"""The whole pipeline on a laptop: sample logs, a tiny policy, a local engine, GRPO, evaluation, report."""
