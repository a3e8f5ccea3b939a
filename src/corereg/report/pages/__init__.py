"""Fills HTML templates; styles and scripts are inlined, so that pages need no other file."""

from importlib import resources

import jinja2

from corereg.report.text import printable

__all__ = ["asset", "render"]


def asset(name: str) -> bytes:
    """Contents of a file of this package, by its path below `report`."""
    return resources.files("corereg.report").joinpath(*name.split("/")).read_bytes()


def render(template: str, **values: object) -> str:
    """Fill a template of this folder. Values are escaped as text, unless the template says otherwise."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: asset(f"pages/{name}").decode("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return printable(environment.get_template(template).render(**values))
