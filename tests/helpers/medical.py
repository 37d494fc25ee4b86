"""The medical domain, and what takes a domain with this one filled in."""

from tuner.learn_to_ask.core import labels
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.engines import offline
from tuner.learn_to_ask.sample_data.vocabulary import vocabulary_of

MEDICAL = default_domain()
VOCABULARY = vocabulary_of(MEDICAL)
COMPLAINTS = VOCABULARY.complaints


def parse_info_set(answer):
    return labels.parse_info_set(answer, MEDICAL.information)


def extract_answer(messages):
    return offline.extract_answer(messages, MEDICAL)


def grade_answer(messages):
    return offline.grade_answer(messages, MEDICAL)
