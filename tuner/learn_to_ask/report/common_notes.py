"""Notes that the reports of turns and of whole interviews have in common."""

FEW_SESSIONS = 30


def few_sessions(name: str, sessions: int) -> str:
    """What to know about intervals from fewer than `FEW_SESSIONS`."""
    return (
        f"{name}: {sessions} session{'s' * (sessions != 1)}. Intervals from fewer than {FEW_SESSIONS} sessions are "
        "rough, and that of a metric that never varies has no width."
    )


def different_sampling(pair: str) -> str:
    """What to know about two policies that were not sampled alike."""
    return (
        f"{pair}: not sampled alike, as far as the files say. A repetition penalty alone makes stops rare: it falls on "
        "the prompt, which names the stop token."
    )
