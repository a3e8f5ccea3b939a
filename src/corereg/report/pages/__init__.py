"""Pages from templates, self-contained: styles and scripts are put into them."""

from importlib import resources

import jinja2

__all__ = ["asset", "render"]


def asset(name: str) -> bytes:
    """A file that the package brings, by its path below `report`."""
    return resources.files("corereg.report").joinpath(*name.split("/")).read_bytes()


def render(template: str, **values: object) -> str:
    """Fill a template of this folder; what is filled in is text, never markup, unless the template says otherwise."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: asset(f"pages/{name}").decode("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
