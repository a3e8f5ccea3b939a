"""Read and write our own JSON files: each is replaced as a whole, and null stands for what JSON cannot hold."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from corereg.io.atomic import atomic_path

__all__ = ["finite", "load_json", "save_json"]


def finite(value: Any) -> Any:
    """A copy with null for NaN and infinity, which JSON lacks, and with text for keys."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def load_json(path: Path) -> dict[str, Any]:
    """The object in a file that this package wrote; empty if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object. The file is replaced as a whole."""
    with atomic_path(path) as staged:
        staged.write_text(json.dumps(content), encoding="utf-8")
