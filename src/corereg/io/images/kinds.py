"""What functions take for an image, for type checkers. At run time each source is checked where it is opened."""

import os
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from typing_extensions import TypedDict

__all__ = ["ApplyOptions", "ImageLike", "MaskLike"]

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from corereg.io.images.image import Image

    class NibabelImage(Protocol):
        """An image of nibabel."""

        def get_filename(self) -> str | None: ...

    class SimpleITKImage(Protocol):
        """An image of SimpleITK."""

        def GetSpacing(self) -> Any: ...  # noqa: N802

        def GetDirection(self) -> Any: ...  # noqa: N802

    ImageLike: TypeAlias = str | os.PathLike[str] | Image | NDArray[Any] | Tensor | NibabelImage | SimpleITKImage
else:
    ImageLike = object

MaskLike: TypeAlias = ImageLike


class ApplyOptions(TypedDict, total=False):
    """Keyword arguments of `Transform.apply`."""

    affine: object
    labels: bool
    reference: Any
    outside: float | None
    interpolation: str | None
