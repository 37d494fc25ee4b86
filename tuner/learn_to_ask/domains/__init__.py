"""Reads and checks domain files; those that come with the package lie beside this one."""

import argparse
import difflib
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.errors import UserError

FOLDER = Path(__file__).parent
DEFAULT = "medical_en"
_NOT_A_DOMAIN = ".vocabulary"


def shipped() -> list[str]:
    """The names of the domains that come with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml") if not file.stem.endswith(_NOT_A_DOMAIN))


@lru_cache(maxsize=1)
def default_domain() -> Domain:
    """The medical domain, which everything takes that is told no other."""
    return load_domain(DEFAULT)


def load_domain(name: str) -> Domain:
    """Reads and checks a domain.

    Args:
        name: A YAML file, or the name of a domain that comes with the package.

    Returns:
        The domain, with the whole path of its vocabulary.

    Raises:
        UserError: Naming the key, when the file cannot be read as a domain.
    """
    import yaml

    file = FOLDER / f"{name}.yaml" if name in shipped() else Path(name)
    said = f"--domain {name}"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        near = difflib.get_close_matches(name, shipped(), n=1)
        advice = f"did you mean {near[0]}?" if near else f"name a YAML file or one of {', '.join(shipped())}"
        raise UserError(f"{said}: no such file; {advice}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{said}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{said}: is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{said}: holds no keys; python -m tuner.learn_to_ask.domain new NAME writes a file to start from"
        )
    try:
        domain = Domain.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{said}: {'; '.join(_problem(one) for one in error.errors())}") from error
    if domain.vocabulary is None:
        return domain
    vocabulary = file.parent / domain.vocabulary
    if not vocabulary.is_file():
        raise UserError(f"{said}: vocabulary: {vocabulary} does not exist; leave the key out if there is none")
    return domain.model_copy(update={"vocabulary": str(vocabulary.resolve())})


def add_domain_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--domain`."""
    parser.add_argument(
        "--domain",
        default=DEFAULT,
        help=f"YAML file of the field that the interviews are about, or one of {', '.join(shipped())}",
    )


def _problem(error: Any) -> str:
    """One finding of pydantic: the key, and what is wrong with it."""
    *parents, last = error["loc"] or ("",)
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        place: type[BaseModel] = Domain
        for parent in parents:
            if isinstance(parent, str):
                place = _model_of(place.model_fields[parent].annotation)
        near = difflib.get_close_matches(str(last), place.model_fields, n=1, cutoff=0.5)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(place.model_fields)}"
        return f"{key} is no key of a domain, {known}"
    if error["type"] == "missing":
        return f"{key} is missing"
    if key.endswith("levels") and error["type"] == "too_short":
        return f"{key}: a rubric needs at least two levels, each with score and when"
    said = str(error["msg"]).removeprefix("Value error, ")
    return f"{key}: {said}" if key else said


def _model_of(annotation: Any) -> type[BaseModel]:
    """The model in a field's annotation, alone or in a tuple."""
    model = annotation if isinstance(annotation, type) else annotation.__args__[0]
    assert issubclass(model, BaseModel)
    return model
