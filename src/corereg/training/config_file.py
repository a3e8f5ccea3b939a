"""config.yaml of a run: every setting with its meaning, ready to be edited and given to --config."""

import sys
import textwrap

import yaml

from corereg.settings import allowed, as_settings, settings_of
from corereg.training.config import TrainConfig

__all__ = ["commented_yaml"]

LINE = 110
"""Characters of a comment's line."""


def commented_yaml(config: TrainConfig) -> str:
    """YAML of all settings; above each a comment with its meaning and what it may be."""
    lines: list[str] = []
    opened: list[str] = []
    plain = as_settings(config)
    for setting in settings_of(config):
        *sections, name = setting.path.split(".")
        content = plain
        for depth, section in enumerate(sections):
            content = content[section]
            if opened[: depth + 1] != sections[: depth + 1]:
                lines += ["", f"{'  ' * depth}{section}:"]
        opened = sections
        indent = "  " * len(sections)
        comment = f"{setting.meaning} ({allowed(setting.hint)})".strip()
        lines += textwrap.wrap(comment, LINE, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        value = yaml.safe_dump(content[name], default_flow_style=True, width=sys.maxsize)
        lines.append(f"{indent}{name}: {value.splitlines()[0]}")
    return "\n".join(lines) + "\n"
