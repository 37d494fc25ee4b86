"""Makes the update of one step fail on the trainer, as an operator of Trinity's pipeline."""

from typing import Any

from trinity.buffer.operators import ExperienceOperatorV1


class BreakAStep(ExperienceOperatorV1):
    """Puts a token into a step's rollouts that no vocabulary has: the trainer fails when it computes with it."""

    def __init__(self, step: int) -> None:
        self.step = step

    async def process(self, exps: list[Any]) -> tuple[list[Any], dict[str, float]]:
        for exp in exps:
            if exp.eid.batch == self.step:
                exp.tokens[-1] = 10**6
        return exps, {}
