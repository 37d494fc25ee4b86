"""Sessions for tests, written as one reads them."""

from tuner.learn_to_ask.core.records import Session

END = "<med_search>"


def session(*lines, session_id="1", diagn="Cold"):
    """A session of lines such as `p: i have a cough` and `d: since when?`."""
    roles = {"p": "user", "d": "assistant"}
    messages = [{"role": roles[line[0]], "content": line[3:]} for line in lines]
    return Session(session_id=session_id, diagn=diagn, messages=messages)


def healthy(session_id="1", *, what="a dry cough", diagn="Cold"):
    """An interview that nothing is to be said against."""
    return session(
        f"p: i have {what} and it does not go away",
        "d: since when do you have it?",
        "p: for about two days now",
        f"d: {END}",
        session_id=session_id,
        diagn=diagn,
    )


def record(one):
    """A session as a line of a log holds it."""
    return one.model_dump()
