"""MONAI: registration as a step of a dictionary pipeline (the extra `monai`)."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from monai.transforms.transform import MapTransform

from corereg.integrations.images import warp
from corereg.method.register import register

__all__ = ["CoreRegisterd"]


class CoreRegisterd(MapTransform):
    """Find the transform between two images of the dictionary, and warp images of the moving side onto the fixed one.

    Images are MetaTensors (C, I, J, K), as `LoadImaged(ensure_channel_first=True)` gives them; the two that are
    registered have one channel. Warped ones carry the fixed image's affine.

    Args:
        keys: the images to warp, `moving_key` among them if it shall be.
        fixed_key: the image that defines the output grid.
        moving_key: the image that is registered onto it.
        label_keys: those of `keys` that are label maps: nearest neighbour.
        transform_key: where the `corereg.Transform` is put; None leaves it out.
        allow_missing_keys: whether some of `keys` may be absent.
        **settings: as `corereg.register` takes them.
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
        """A new dictionary with warped images and the transform.

        Raises:
            InputError: an image that cannot be registered.
        """
        found = dict(data)
        transform = register(data[self.fixed_key], data[self.moving_key], **self.settings).transform
        for key in self.key_iterator(found):
            found[key] = warp(transform, data[key], labels=key in self.label_keys)
        if self.transform_key is not None:
            found[self.transform_key] = transform
        return found
