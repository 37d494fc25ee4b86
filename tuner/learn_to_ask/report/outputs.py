"""What the reports of turns and of whole interviews have in common as files."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.learn_to_ask.cli import check_output
from tuner.learn_to_ask.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def claim_outputs(
    output_dir: Path, names: Sequence[str], files: Sequence[Path], *, what: str, overwrite: bool
) -> list[Path]:
    """Where a report goes.

    Args:
        output_dir: Made when it is not there.
        names: Of its files.
        files: What it is made of.
        what: These are.
        overwrite: Whether a former report may be replaced.

    Raises:
        UserError: When one is in the way, or would replace what it is made of.
    """
    outputs = [output_dir / name for name in names]
    sources = [file.resolve() for file in files]
    for output in outputs:
        if output.resolve() in sources:
            raise UserError(f"--output_dir {output_dir}: the report would replace the {what} {output}")
        check_output(output, "--output_dir", overwrite=overwrite)
    return outputs


def as_json(report: "DataclassInstance") -> str:
    """A report as its JSON file has it."""
    return json.dumps(dataclasses.asdict(report), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
