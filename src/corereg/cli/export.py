"""`corereg export`."""

from typing import Annotated

import typer

from corereg.cli.common import Force, Out, command
from corereg.cli.messages import show, show_result


@command
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model with a network: head-neck-ct or a file.")],
    out: Out,
    to: Annotated[str, typer.Option(help="onnx, torchscript or monai-bundle (a folder).")],
    force: Force = False,
) -> None:
    """Write a model's network for other programs: ONNX, TorchScript or a MONAI bundle."""
    from corereg.integrations.model_export import export_model

    export_model(model, out, to=to, force=force)
    show(str(out))
    show_result({"output": out, "model": model, "format": to})
