"""Writes a commented domain file to start from, or checks one: python -m tuner.learn_to_ask.domain new|check."""

import argparse
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, check_output, run
from tuner.learn_to_ask.domains import FOLDER, load_domain
from tuner.learn_to_ask.prompt import shown_prompts

_STARTER = FOLDER / "starter.txt"


def main() -> int:
    """Writes a commented domain file, or checks one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new", help="write NAME.yaml to start from")
    new.add_argument("name", help="of the domain")
    new.add_argument("--overwrite", action="store_true", help="replace an existing file")
    check = commands.add_parser("check", help="check a domain file and show the prompts that it makes")
    check.add_argument("domain", help="a YAML file, or a domain that comes with the package")
    arguments = parser.parse_args()
    if arguments.command == "check":
        print(shown_prompts(load_domain(arguments.domain)))
        return EXIT_DONE
    file = Path(f"{arguments.name}.yaml")
    check_output(file, "NAME", overwrite=arguments.overwrite)
    file.write_text(_STARTER.read_text(encoding="utf-8").replace("NAME", Path(arguments.name).name), encoding="utf-8")
    print(f"wrote {file}: change it, then python -m tuner.learn_to_ask.domain check {file}")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
