"""The offline stand-ins of extractor and grader, and the vocabulary they share with the sample logs."""

import itertools

import pytest
from medical import COMPLAINTS, MEDICAL, VOCABULARY, extract_answer, grade_answer, parse_info_set

from tuner.learn_to_ask.core.grading import parse_grade, parse_score
from tuner.learn_to_ask.engines.base import Reply, Request, Sampling
from tuner.learn_to_ask.engines.offline import OfflineEngine, judge_answer, own_words
from tuner.learn_to_ask.prompt import extraction_messages, grading_messages, judging_messages

ATTRIBUTES = [(complaint, attribute) for complaint in COMPLAINTS for attribute in complaint.attributes]
ANSWERS = [
    (phrase, f"{attribute.field}: {term}") for _, attribute in ATTRIBUTES for phrase, term in attribute.answers.items()
]
COMMON = frozenset(VOCABULARY.common_words.split())
NAMES = [f"{complaint.name}: {attribute.question}" for complaint, attribute in ATTRIBUTES]


def user(content):
    return {"role": "user", "content": content}


def doctor(content):
    return {"role": "assistant", "content": content}


def extracted(*future):
    return parse_info_set(extract_answer(extraction_messages(future)))


def scores_of(question, info_truth, context=()):
    """(format, content) of a question after a dialogue."""
    scores = parse_grade(grade_answer(grading_messages([user("hello"), *context], question, info_truth)))
    return scores.format_score, scores.content_score


# The extractor


def test_the_extractor_lists_what_the_patient_answers():
    future = [
        doctor("what does the stool look like?"),
        doctor("how many times a day?"),
        user("It is like WATER"),
        user("well, maybe five times, or so"),
        doctor("<med_search>"),
    ]
    assert extracted(*future) == ["symptom nature: watery stool", "symptom severity: 4-5 times daily"]


def test_several_answers_may_stand_in_one_message():
    assert extracted(user("i threw up once and my belly cramps too")) == [
        "symptom: abdominal cramps",
        "symptom: vomiting",
    ]


def test_an_answer_that_is_given_twice_is_listed_once():
    assert extracted(user("i limp"), doctor("ok"), user("yes, i limp")) == ["symptom severity: limited walking"]


def test_what_the_doctor_says_is_no_information():
    assert extracted(doctor("do you mean it is like water?"), user("ok")) == []


@pytest.mark.parametrize("chat", [*VOCABULARY.closing_answers, *VOCABULARY.off_topic, *VOCABULARY.user_chat])
def test_medication_allergies_and_chat_are_no_information(chat):
    assert extracted(doctor("anything else?"), user(chat)) == []


def test_a_dialogue_about_something_else_gives_an_empty_list():
    assert extracted(user("what time do you open"), doctor("at nine")) == []


# The grader


@pytest.mark.parametrize(
    ("response", "format_score"),
    [
        ("Is the stool watery, slimy or loose?", 1.0),
        ("Is the stool watery? Or loose?", 0.5),
        ("Watery? Slimy? Loose?", 0.0),
        ("Watery? Slimy? Loose? Hard?", 0.0),
        ("Tell me about the stool.", 0.0),
        ("", 0.0),
        ("大便像水吗？", 1.0),
        ("Watery？ Or loose?", 0.5),
    ],
)
def test_the_question_marks_make_the_format_score(response, format_score):
    assert scores_of(response, "symptom nature: watery stool")[0] == format_score


@pytest.mark.parametrize(
    ("question", "info_truth", "content_score"),
    [
        pytest.param("Is the stool watery or loose?", "symptom nature: watery stool", 1.0, id="directly"),
        pytest.param("Is it mucus stool?", "symptom nature: watery stool", 1.0, id="the answer need not be guessed"),
        pytest.param("Is the stool watery or loose?", "symptom: vomiting", 0.5, id="the same complaint"),
        pytest.param("Is the stool watery or loose?", "symptom trigger: worse at night", 0.0, id="another complaint"),
        pytest.param("How is the weather?", "symptom nature: watery stool", 0.0, id="something else"),
        pytest.param("Is it the stool?", "symptom nature: watery stool", 1.0, id="half of what the item names"),
        pytest.param("Is it the stool?", "symptom: vomiting", 0.0, id="one word of a neighbour is too little"),
        pytest.param("Is the stool watery or loose?", "", 0.0, id="nothing to learn"),
        pytest.param(
            "Is the stool watery or loose?",
            "symptom trigger: worse at night, symptom: vomiting, symptom nature: watery stool",
            1.0,
            id="the best of several items",
        ),
        pytest.param("Is it the mitral valve?", "symptom: leaky mitral valve", 1.0, id="outside the vocabulary"),
        pytest.param("Is it the knee?", "symptom: leaky mitral valve", 0.0, id="outside the vocabulary, missed"),
        pytest.param("Is it a dry one?", "symptom: big, dry blister", 1.0, id="an item with a comma"),
    ],
)
def test_shared_words_make_the_content_score(question, info_truth, content_score):
    assert scores_of(question, info_truth)[1] == content_score


def test_only_the_last_message_is_graded():
    context = [doctor("Is the stool watery? Or loose?"), user("no")]
    assert scores_of("How is the weather?", "symptom nature: watery stool", context) == (1.0, 0.0)


@pytest.mark.parametrize(("complaint", "attribute"), ATTRIBUTES, ids=NAMES)
def test_a_question_that_offers_the_answers_of_an_attribute_asks_about_it_and_not_about_its_neighbours(
    complaint, attribute
):
    first, second, third = attribute.answers.values()
    question = f"{attribute.question}: {first}, {second} or {third}?"
    for neighbour in complaint.attributes:
        expected = 1.0 if neighbour is attribute else 0.5
        for term in neighbour.answers.values():
            assert scores_of(question, f"{neighbour.field}: {term}") == (1.0, expected)


# The engine


def test_the_engine_gives_each_request_as_many_answers_as_asked_for_one_by_one():
    pulled = []

    def requests():
        for key in (7, 8):
            pulled.append(key)
            yield Request(key, [user(f"message {key}")])

    engine = OfflineEngine(lambda messages: messages[-1]["content"].upper())
    replies = engine.generate(requests(), Sampling(temperature=1.0, top_p=1.0, max_tokens=8, n=2))
    assert next(replies) == Reply(7, ["MESSAGE 7", "MESSAGE 7"])
    assert pulled == [7]
    assert list(replies) == [Reply(8, ["MESSAGE 8", "MESSAGE 8"])]
    engine.close()


def test_the_description_tells_the_stand_ins_apart():
    assert OfflineEngine(extract_answer).description == "offline:extract_answer"
    assert OfflineEngine(grade_answer).description == "offline:grade_answer"


# The vocabulary


def test_every_item_stands_for_one_answer_of_one_attribute():
    phrases = [phrase for phrase, _ in ANSWERS]
    items = [item for _, item in ANSWERS]
    assert len(set(phrases)) == len(phrases)
    assert len(set(items)) == len(items)


def test_no_answer_contains_another():
    for (one, _), (other, _) in itertools.permutations(ANSWERS, 2):
        assert one not in other


def test_answers_are_written_as_the_extractor_looks_for_them():
    for phrase, item in ANSWERS:
        assert phrase == " ".join(phrase.lower().split())
        assert extracted(user(phrase)) == [item]


def test_items_are_of_the_fields_that_count_and_survive_being_joined_and_split():
    for _, item in ANSWERS:
        field, _, term = item.partition(": ")
        assert field in {each.name for each in MEDICAL.information.fields}
        assert "," not in term and ":" not in term


@pytest.mark.parametrize(("complaint", "attribute"), ATTRIBUTES, ids=NAMES)
def test_every_attribute_has_two_telling_words_of_its_own(complaint, attribute):
    words = {one.question: own for one, own in zip(complaint.attributes, own_words(complaint, COMMON), strict=True)}
    own = words[attribute.question]
    assert len(own) >= 2
    for neighbour in complaint.attributes:
        if neighbour is not attribute:
            assert not own & words[neighbour.question]
            text = " ".join((neighbour.question, *neighbour.about, *neighbour.answers.values())).lower()
            assert not own & set(text.replace(",", " ").split())


def test_questions_and_complaints_are_told_apart():
    for complaint in COMPLAINTS:
        questions = [attribute.question for attribute in complaint.attributes]
        assert len(set(questions)) == len(questions)
    names = [complaint.name for complaint in COMPLAINTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("messages", "score"),
    [
        ([user("a cough"), doctor("since when?"), user("today"), doctor("<med_search>")], 1.0),
        ([user("a cough"), doctor("since when?"), user("today"), doctor("is it dry?"), doctor("<med_search>")], 0.5),
        ([user("a cough"), doctor("since when?"), doctor("<med_search>")], 0.0),
        ([user("a cough"), doctor("<med_search>")], 0.5),
    ],
)
def test_the_judge_goes_by_the_share_of_questions_that_are_answered(messages, score):
    reply = judge_answer(judging_messages(messages, MEDICAL), MEDICAL)

    assert parse_score(reply, name="teaches")[0] == score
