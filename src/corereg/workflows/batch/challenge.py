"""A challenge submission of the fields that a batch of a Learn2Reg data set has made.

Written in a process of its own, since it needs libraries that the driver does without. Upstream: `run`.
"""

import sys
from pathlib import Path

from corereg.errors import InputError
from corereg.evaluation.submission import write_submission

__all__ = ["write_fields"]


def write_fields(dataset: Path, split: str, directory: Path, form: str) -> None:
    """Write `submission/` into the folder of a batch; end the process with one line if that cannot be."""
    try:
        write_submission(dataset, directory, directory / "submission", form=form, split=split)
    except InputError as error:
        sys.exit(f"corereg: {error}")
