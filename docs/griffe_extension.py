"""What the Python reference needs to know beyond the source: the defaults of the settings of `register`."""

from typing import Any

from griffe import DocstringSectionParameters, Extension, Function

from corereg.method.config import register_options

__all__ = ["SettingDefaults"]

UNKNOWN = "..."
"""The default of a keyword that comes from a TypedDict."""


class SettingDefaults(Extension):
    """Fills in the default of each setting, in the signature and in the list of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.defaults = {option.name: repr(option.default) for option in register_options()}

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Called for every function that is read."""
        listed = [] if func.docstring is None else func.docstring.parsed
        sections = [section.value for section in listed if isinstance(section, DocstringSectionParameters)]
        for parameter in [*func.parameters, *(one for section in sections for one in section)]:
            if parameter.default == UNKNOWN:
                parameter.default = self.defaults.get(parameter.name, UNKNOWN)
