"""An engine and the journal of what it answers, opened and closed together."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from tuner.learn_to_ask.engines.base import Engine
from tuner.learn_to_ask.journal import Journal


@contextmanager
def resumable(
    output: Path,
    make_engine: Callable[[], Engine],
    *,
    depends_on: Mapping[str, str],
    resume: bool,
    overwrite: bool,
) -> Iterator[tuple[Engine, Journal]]:
    """Loads an engine and opens the journal of an output; both are closed in every case.

    Args:
        output: The file the run is going to write.
        make_engine: Loads the engine, after what an unfinished run left has been looked at.
        depends_on: What the results depend on besides the engine, name -> value.
        resume: Continue an unfinished run.
        overwrite: Drop an unfinished run.

    Raises:
        UserError: When an unfinished run is in the way, see `Journal`.
    """
    Journal.check_unfinished(output, resume=resume, overwrite=overwrite)
    with closing(make_engine()) as engine:
        fingerprint = {**depends_on, "engine": engine.description}
        with closing(Journal(output, fingerprint=fingerprint, resume=resume, overwrite=overwrite)) as journal:
            yield engine, journal
