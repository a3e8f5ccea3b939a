"""MONAI: registration as a step of a dictionary pipeline (the extra `monai`)."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from monai.transforms.transform import MapTransform

from corereg.integrations.images import warp
from corereg.method.register import register

__all__ = ["CoreRegisterd"]


class CoreRegisterd(MapTransform):
    """Register two images of the dictionary, and warp images of the moving side onto the fixed image.

    Images are MetaTensors (C, I, J, K), as loaded by `LoadImaged(ensure_channel_first=True)`; the two registered images
    have one channel. Warped images carry the fixed image's affine.

    Args:
        keys: keys of the images to warp; include `moving_key` to warp the moving image itself.
        fixed_key: key of the image that defines the output grid.
        moving_key: key of the image to register onto it.
        label_keys: those of `keys` that are label maps, which are warped with nearest-neighbour interpolation.
        transform_key: key under which the `corereg.Transform` is returned; None leaves it out.
        allow_missing_keys: whether some of `keys` may be absent.
        **settings: settings of `corereg.register`.
    """

    def __init__(
        self,
        keys: Hashable | Collection[Hashable],
        fixed_key: Hashable = "fixed",
        moving_key: Hashable = "moving",
        *,
        label_keys: Sequence[Hashable] = (),
        transform_key: Hashable | None = "transform",
        allow_missing_keys: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fixed_key, self.moving_key = fixed_key, moving_key
        self.label_keys, self.transform_key = frozenset(label_keys), transform_key
        self.settings = settings

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary with the warped images and the transform.

        Raises:
            InputError: an image cannot be registered.
        """
        found = dict(data)
        transform = register(data[self.fixed_key], data[self.moving_key], **self.settings).transform
        for key in self.key_iterator(found):
            found[key] = warp(transform, data[key], labels=key in self.label_keys)
        if self.transform_key is not None:
            found[self.transform_key] = transform
        return found
