"""The settings that a batch was begun with: a later run into its folder must have the same."""

import json
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.io.json_files import load_json, save_json
from corereg.method.config import RegisterConfig
from corereg.provenance import hash_files
from corereg.settings import as_settings, changed_keys, with_settings

__all__ = ["check_same_settings", "remember_settings"]

SETTINGS_FILE = "batch.json"


def check_same_settings(directory: Path, config: RegisterConfig, keep: tuple[str, ...]) -> dict[str, Any]:
    """What the folder's settings file is to hold; the same as it holds if it is there.

    Raises:
        InputError: the folder holds a batch with other settings.
    """
    content: dict[str, Any] = {"settings": as_settings(config), "keep": list(keep)}
    for name, file in (("model", config.model), ("thresholds", config.thresholds)):
        content[f"{name}_sha256"] = hash_files([Path(file)]) if file and Path(file).is_file() else None
    before = load_json(directory / SETTINGS_FILE)
    if before and before != json.loads(json.dumps(content)):
        changes = changed_keys(with_settings(RegisterConfig(), before["settings"]), config)
        if before["keep"] != content["keep"]:
            changes.append(f"keep: {','.join(before['keep'])} -> {','.join(keep)}")
        words = "; ".join(changes) or "another model or thresholds file"
        raise InputError(
            f"the folder {directory} holds a batch with other settings ({words}), "
            "expected the same ones; repeat them, or choose another folder"
        )
    return content


def remember_settings(directory: Path, content: dict[str, Any]) -> None:
    """Write the folder's settings file."""
    save_json(directory / SETTINGS_FILE, content)
