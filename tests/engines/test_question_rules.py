"""The offline grader on plain language: forty messages judged by hand, and what counts as a question."""

import pytest
from medical import grade_answer

from tuner.learn_to_ask.core.grading import parse_grade
from tuner.learn_to_ask.engines.question_rules import asks, count_questions
from tuner.learn_to_ask.prompt import grading_messages

CRAMPS = "symptom: abdominal cramps"
NIGHT = "symptom trigger: worse at night"
STOOL = "symptom nature: watery stool"

# message, reference, format, content: as a person who reads the grader's prompt would score them
JUDGED = [
    # plain language
    ("Do you have cramps?", CRAMPS, 1.0, 1.0),
    ("Are you having any abdominal cramping?", CRAMPS, 1.0, 1.0),
    ("Does your abdomen cramp at times?", CRAMPS, 1.0, 1.0),
    ("Any cramps?", CRAMPS, 1.0, 1.0),
    ("Have you vomited?", "symptom: vomiting", 1.0, 1.0),
    ("Did you have a fever: A) none, B) up to 38.5, C) above?", "symptom: fever", 1.0, 1.0),
    ("Is the cough worse at night?", NIGHT, 1.0, 1.0),
    ("When is the cough at its worst, at night or in the morning?", NIGHT, 1.0, 1.0),
    ("Do you feel dizzy?", "symptom: dizziness", 1.0, 1.0),
    ("Is your throat sore?", "symptom: sore throat", 1.0, 1.0),
    ("Do you wheeze when you breathe out?", "symptom: wheezing", 1.0, 1.0),
    ("Ok, thanks. Is the stool watery, slimy or loose?", STOOL, 1.0, 1.0),
    ("And your stool, is it like water?", STOOL, 1.0, 1.0),
    ("So the stool is watery?", STOOL, 1.0, 1.0),
    ("You have cramps in the abdomen?", CRAMPS, 1.0, 1.0),
    ("Do the cramps come and go", CRAMPS, 1.0, 1.0),  # who writes messages leaves marks out
    ("Is it the mitral valve?", "symptom: leaky mitral valve", 1.0, 1.0),
    ("大便像水吗？", STOOL, 1.0, 0.0),
    # the same complaint, another one, something else
    ("How many times a day do you go?", CRAMPS, 1.0, 0.5),
    ("Did you eat any special food before?", STOOL, 1.0, 0.5),
    ("Is the stool watery or loose?", NIGHT, 1.0, 0.0),
    ("How is the weather?", CRAMPS, 1.0, 0.0),
    ("Are you taking any medicine?", STOOL, 1.0, 0.0),
    ("Do you have cramps?", "", 1.0, 0.0),
    # several questions, with and without marks of their own
    ("Do you have cramps? Do you vomit?", CRAMPS, 0.5, 1.0),
    ("Do you have cramps, and have you vomited?", CRAMPS, 0.5, 1.0),
    ("Do you have cramps, did you vomit, and is there any fever?", CRAMPS, 0.0, 1.0),
    ("Is the stool watery, how often do you go and do you have a fever?", STOOL, 0.0, 1.0),
    ("When did it start, and how bad are the cramps?", CRAMPS, 0.5, 1.0),
    ("Cramps? Fever? Vomiting?", CRAMPS, 0.0, 1.0),
    ("Is it worse at night, or is it worse in the morning?", NIGHT, 1.0, 1.0),  # two choices of one question
    ("Do you have cramps? A) yes, often, B) now and then or C) never.", CRAMPS, 1.0, 1.0),
    # no question
    ("You should drink more water.", STOOL, 0.0, 0.0),
    ("I think you have abdominal cramps.", CRAMPS, 0.0, 0.0),
    ("Tell me about the stool.", STOOL, 0.0, 0.0),
    ("", CRAMPS, 0.0, 0.0),
    # strung-together words
    ("abdominal cramps stool watery night cough", CRAMPS, 0.0, 0.0),
    ("Cramps abdominal watery stool night vomiting?", CRAMPS, 1.0, 0.0),
    ("watery stool watery stool watery stool?", STOOL, 1.0, 0.0),
    ("cramps cramps?", CRAMPS, 1.0, 0.0),
]


@pytest.mark.parametrize(("message", "reference", "format_score", "content_score"), JUDGED)
def test_messages_judged_by_hand(message, reference, format_score, content_score):
    scores = parse_grade(grade_answer(grading_messages([{"role": "user", "content": "hello"}], message, reference)))

    assert (scores.format_score, scores.content_score) == (format_score, content_score)


@pytest.mark.parametrize(
    ("message", "questions"),
    [
        ("Is it 38.5 or above?", 1),  # a decimal point ends no sentence
        ("Is there any phlegm and what colour?", 1),
        ("Can you still walk and grip?", 1),
        ("How long have you coughed, when does it get worse, and does it hurt?", 3),
        ("Hello. Do you cough?", 1),
        ("有痰吗？什么颜色？", 2),
        ("有没有痰呢", 1),
        ("...", 0),
        ("?", 0),
    ],
)
def test_questions_are_counted_by_their_clauses(message, questions):
    assert count_questions(message) == questions


@pytest.mark.parametrize("message", ["Since when do you cough?", "For how long?", "One eye or both?", "Fever?"])
def test_short_questions_are_questions(message):
    assert asks(message)
