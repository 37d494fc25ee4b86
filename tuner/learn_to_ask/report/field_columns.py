"""The columns behind coverage by field: what each sample of an evaluation adds to each field."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from tuner.learn_to_ask.core.labels import items_of_truth
from tuner.learn_to_ask.core.records import GradedTask, Message
from tuner.learn_to_ask.core.reward import decision
from tuner.learn_to_ask.evaluation.field_coverage import asked_items, field_of, item_words, shares_asked


def _numbers() -> "array[int]":
    return array("q")


@dataclass
class FieldColumns:
    """One entry for each field of each sample to continue from; takes records one by one and forgets their texts.

    Records come by session, because what was said after a sample stands in the later ones.

    Attributes:
        excluded: What never counts as information in the domain, in words.
        names: Field -> its number.
        sample: For each entry the position of its sample.
        number: That of its field.
        items: How many items of the reference information have it.
        asked: Sum over the rollouts of the share of these items that they ask for.
        full: Questions with full content score.
        unmatched: Those of them that share no word with any item.
    """

    excluded: str = ""
    names: dict[str, int] = field(default_factory=dict)
    sample: "array[int]" = field(default_factory=_numbers)
    number: "array[int]" = field(default_factory=_numbers)
    items: "array[int]" = field(default_factory=_numbers)
    asked: "array[float]" = field(default_factory=lambda: array("d"))
    full: int = 0
    unmatched: int = 0

    def add(self, record: GradedTask, position: int, dialogue: Sequence[Message]) -> None:
        """Takes the next record.

        Args:
            record: Of an evaluation.
            position: Of its sample.
            dialogue: The longest context of its session.
        """
        items = list(dict.fromkeys(items_of_truth(record.info_truth)))
        if record.decision_truth == "stop" or not items:
            return
        words = item_words(items, record.messages, dialogue, excluded=self.excluded)
        sums = dict.fromkeys(map(field_of, items), 0.0)
        for rollout, grade in zip(record.rollouts, record.grades, strict=True):
            if decision(rollout, record.domain.stop_token) == "stop":
                continue
            asked = asked_items(words, rollout)
            for name, share in shares_asked(items, asked).items():
                sums[name] += share
            if grade.content_score == 1.0:
                self.full += 1
                self.unmatched += not asked
        for name, total in sums.items():
            self.sample.append(position)
            self.number.append(self.names.setdefault(name, len(self.names)))
            self.items.append(sum(field_of(item) == name for item in items))
            self.asked.append(total)
