"""A session to interview, policies with a script, and what they come to."""

from medical import MEDICAL
from sessions import session

from tuner.learn_to_ask.core.records import Course, Interview, SamplingValues
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.evaluation.answering import RULES
from tuner.learn_to_ask.evaluation.patient import answer, make_patient
from tuner.learn_to_ask.jsonl import write_jsonl

# Three facts; the question that is about each, in order.
LINES = (
    "p: i have diarrhea since last night",
    "d: what does the stool look like?",
    "d: how many times a day?",
    "p: it is like water",
    "p: about five",
    "d: did you eat anything unusual?",
    "p: a very spicy hotpot",
    "d: <med_search>",
)
ITEMS = ["symptom nature: watery stool", "symptom severity: 4-5 times daily", "symptom trigger: spicy food"]
QUESTIONS = ["Is the stool watery?", "How many times a day do you go?", "Did you eat something spicy?"]
STOP = "<stop />"


def sample_of(*lines, items, session_id="1"):
    """The first sample of a session, as step A writes it."""
    first = next(segment(session(*lines, session_id=session_id)))
    return first.model_copy(update={"info_set": items})


def diarrhea(session_id="1"):
    return sample_of(*LINES, items=ITEMS, session_id=session_id)


def course(patient, *said, stop_token=STOP):
    """How it goes when a policy says this."""
    turns, known = [], set()
    for text in said:
        if stop_token in text:
            return Course(turns=turns, end=text)
        turns.append(answer(patient, text, known))
        known |= set(turns[-1].facts)
    return Course(turns=turns, end=None)


def interview(*said, max_turns=6, sample=None, session_id="1", logged=()):
    """The record of an interview in which the policy and the logged expert say this."""
    sample = sample or diarrhea(session_id)
    patient = make_patient(sample, MEDICAL)
    nothing = SamplingValues(temperature=None, top_p=None, max_tokens=None, repetition_penalty=None)
    return Interview(
        session_id=session_id,
        messages=sample.messages,
        facts=list(patient.facts),
        max_turns=max_turns,
        held=course(patient, *said),
        logged=course(patient, *logged),
        policy="script",
        user=RULES,
        sampling=nothing,
        sampling_applied=nothing,
        domain=MEDICAL.of_record,
    )


def write_interviews(path, interviews):
    """One a line, as the command writes them."""
    write_jsonl(path, interviews)
    return path
