"""Downloads RealMedConv to where the scripts look: `python -m tuner.learn_to_ask.data_prepare.download`.

A download that was cut off goes on where it stopped. HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 takes
what is in the cache, HF_TOKEN is for private data sets.
"""

import argparse
import time
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, print_summary, run
from tuner.learn_to_ask.errors import UserError

REPOSITORY = "datajuicer/RealMedConv"
FILES = ("train_origin.jsonl", "test_origin.jsonl")
LICENCE = "CC BY-NC-SA 4.0: name the authors, no commercial use, pass on under the same terms"


def download(*, folder: Path, revision: str | None) -> list[Path]:
    """Fetches the raw logs.

    Args:
        folder: Gets the files of the data set.
        revision: A branch, tag or commit of the data set; `None` for its main branch.

    Returns:
        The files of the raw logs.

    Raises:
        UserError: When the hub cannot be reached, does not have it, or holds other files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(repo_id=REPOSITORY, repo_type="dataset", local_dir=str(folder), revision=revision)
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{REPOSITORY}: the hub cannot be reached and the cache does not hold it; check the network, or name a "
            "mirror with HF_ENDPOINT"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{REPOSITORY}: cannot be downloaded: {reason}; run the command again to go on") from error
    files = [folder / name for name in FILES]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{REPOSITORY}: {', '.join(missing)} is not in it; name another --revision")
    return files


def main() -> int:
    """Reads the flags and downloads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--local_dir", type=Path, default=Path("tuner/learn_to_ask/data"), help="gets the files")
    parser.add_argument("--revision", help="a branch, tag or commit of the data set; default: its main branch")
    arguments = parser.parse_args()
    started = time.monotonic()
    files = download(folder=arguments.local_dir, revision=arguments.revision)
    sizes = [(file.name, f"{file.stat().st_size:,} bytes") for file in files]
    print_summary(f"downloaded: {REPOSITORY}", [*sizes, ("licence", LICENCE)], started=started)
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
