"""Writes down every rollout with the log-probabilities its engine gave it, as an operator of Trinity's pipeline."""

import json
from pathlib import Path
from typing import Any

from trinity.buffer.operators import ExperienceOperatorV1


class RecordRollouts(ExperienceOperatorV1):
    """Appends one JSON line a rollout."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    async def process(self, exps: list[Any]) -> tuple[list[Any], dict[str, float]]:
        with self.file.open("a", encoding="utf-8") as file:
            for exp in exps:
                row = {
                    "step": exp.eid.batch,
                    "version": exp.info["model_version"],
                    "tokens": exp.tokens.tolist(),
                    "prompt_length": exp.prompt_length,
                    "logprobs": exp.logprobs.tolist(),
                    "reward": exp.reward,
                }
                file.write(json.dumps(row) + "\n")
        return exps, {}
