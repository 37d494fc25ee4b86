"""Brings logs in from other formats, and samples out to the published scripts.

Examples:
  # chats in the form of OpenAI's API
  python -m tuner.learn_to_ask.data_prepare.convert --from openai chats.jsonl sessions.jsonl

  # a table with a message in each row
  python -m tuner.learn_to_ask.data_prepare.convert --from table log.csv sessions.jsonl --session_column visit \\
    --role_column speaker --text_column text --time_column sent_at --user_roles patient --assistant_roles doctor,nurse

  # samples of script 1 as the published step B reads them
  python -m tuner.learn_to_ask.data_prepare.convert --to upstream train_processed.jsonl upstream_processed.jsonl
"""

import argparse
from pathlib import Path

from tuner.learn_to_ask.cli import HelpFormatter, run
from tuner.learn_to_ask.data_prepare.conversion import export_samples, import_logs
from tuner.learn_to_ask.data_prepare.formats.dialogue import ASSISTANT_ROLES, IGNORED_ROLES, USER_ROLES, Roles
from tuner.learn_to_ask.data_prepare.formats.select import FORMATS, TABLE
from tuner.learn_to_ask.data_prepare.formats.table import Columns
from tuner.learn_to_ask.data_prepare.formats.tabular import Tabular
from tuner.learn_to_ask.errors import UserError


def _names(text: str) -> tuple[str, ...]:
    """The names in a flag, which commas separate."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--from", dest="source", choices=list(FORMATS), help="format of the input")
    direction.add_argument("--to", dest="target", choices=["upstream"], help="format of the output; the input is ours")
    parser.add_argument("input", type=Path, metavar="IN", help="a file, or a folder of files")
    parser.add_argument("output", type=Path, metavar="OUT", help="one record a line")
    sides = (
        ("user", USER_ROLES, "the patient's side"),
        ("assistant", ASSISTANT_ROLES, "the doctor's side"),
        ("ignored", IGNORED_ROLES, "what is no part of the dialogue"),
    )
    for side, names, what in sides:
        text = f"names of {what}, separated by commas"
        parser.add_argument(f"--{side}_roles", type=_names, default=",".join(names), help=text)
    table = parser.add_argument_group("flat tables", "with --from table")
    table.add_argument("--session_column", help="holds the session's id; session_id unless given")
    table.add_argument("--role_column", help="holds who speaks; role unless given")
    table.add_argument("--text_column", help="holds what is said; content unless given")
    table.add_argument("--time_column", help="holds when; without it the rows of a session are in order")
    table.add_argument("--separator", help=r"between the columns of a CSV; a comma unless given, \t for a tab")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row instead of skipping it")
    parser.add_argument("--max_bad_lines", type=float, default=0.01, help="share of unusable rows that exits with 0")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def _roles(arguments: argparse.Namespace) -> Roles:
    """The roles, each on one side.

    Raises:
        UserError: When a name is on two sides.
    """
    flags = ("user_roles", "assistant_roles", "ignored_roles")
    sides = [frozenset(name.casefold() for name in getattr(arguments, flag)) for flag in flags]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = sorted(sides[first] & sides[second])
        if both:
            raise UserError(f"--{flags[first]} and --{flags[second]} both hold {both[0]!r}; name it in one of them")
    return Roles(*sides)


def _table(arguments: argparse.Namespace) -> Tabular:
    """The columns and their separator.

    Raises:
        UserError: When one of these flags is given and the input is no table, or the separator is no character.
    """
    flags = ("session_column", "role_column", "text_column", "time_column", "separator")
    given = {flag: value for flag in flags if (value := getattr(arguments, flag)) is not None}
    if given and arguments.source != TABLE:
        raise UserError(f"--{next(iter(given))}: only with --from table")
    separator = given.pop("separator", ",").replace("\\t", "\t")
    if len(separator) != 1:
        raise UserError(f"--separator {separator!r}: must be one character, \\t for a tab")
    return Tabular(Columns(**{flag.removesuffix("_column"): name for flag, name in given.items()}), separator)


def main() -> int:
    """Reads the flags and converts."""
    arguments = _parser().parse_args()
    roles, table = _roles(arguments), _table(arguments)
    if arguments.target:
        return export_samples(
            input_file=arguments.input,
            output_file=arguments.output,
            strict=arguments.strict,
            overwrite=arguments.overwrite,
            max_bad_lines=arguments.max_bad_lines,
        )
    return import_logs(
        source=arguments.source,
        input_path=arguments.input,
        output_file=arguments.output,
        roles=roles,
        table=table,
        strict=arguments.strict,
        overwrite=arguments.overwrite,
        max_bad_lines=arguments.max_bad_lines,
    )


if __name__ == "__main__":
    run(main)
