"""Names of the structures in label maps: from a file, or from the description of a data set."""

import json
from pathlib import Path
from typing import Any

from corereg.errors import InputError

__all__ = ["read_label_names"]


def read_label_names(path: Path) -> dict[int, str]:
    """Read a JSON: {"1": "liver"}, {"liver": 1}, or one that has such an object under `labels`, as data sets do.

    Raises:
        InputError: it cannot be read, or holds no such names.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"got the label names {path}, which cannot be read ({error}); check the file") from None
    names = _names(content.get("labels", content)) if isinstance(content, dict) else {}
    if not names:
        raise InputError(f'got the label names {path}, expected a JSON object such as {{"1": "liver"}}; correct it')
    return names


def _names(content: Any) -> dict[int, str]:
    """Learn2Reg has an object for each modality; the regions of nnU-Net have lists of labels, which are left out."""
    if not isinstance(content, dict):
        return {}
    found: dict[int, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= _names(value)
        elif isinstance(value, str) and key.isdigit():
            found[int(key)] = value
        elif isinstance(value, int) and not isinstance(value, bool):
            found[value] = key
    return {label: name for label, name in found.items() if label > 0}
