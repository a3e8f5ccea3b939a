"""The joint objective of CoRe on one batch of pairs: L = L_reg + lambda L_con (4).

Everything that a step sends through the network is here, so that one module's forward is one step, as distributed
training wants it. The augmented images of the registration loss serve the contrast as originals: each is encoded once.

Legend: B pairs, S = 2 B images (fixed ones first), I J K axes of the working grid, X Y Z of the 1/2 grid.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from corereg.geometry.displacement import compose
from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.strided import subsample
from corereg.geometry.warp import warp
from corereg.method.coarse.coupled_convex import match
from corereg.method.coarse.passes import half_grid_displacement
from corereg.method.features.network import ConvNetModel
from corereg.method.pipeline import full_grid_displacement
from corereg.training.config import TrainConfig
from corereg.training.objective import compiled_blocks as compiled_extractor
from corereg.training.objective.losses import (
    contrastive_loss,
    convolved_at,
    draw_points,
    features_at,
    registration_loss,
)
from corereg.training.objective.views import (
    Affine,
    change_appearance,
    for_stride,
    random_affine,
    transport,
    valid_region,
    view,
)

__all__ = ["Losses", "Objective", "Phase", "new_model", "phase_of"]

HALF, QUARTER = 2, 4
"""Strides of the pseudo-label's grid and of the features that the contrast compares."""

BACKGROUND_SHARE = 0.05
"""Of the range of a batch's intensities, counted from its lowest: what lies below is air, or nothing at all."""


class Losses(NamedTuple):
    """Of one batch."""

    total: Float[Tensor, ""]
    registration: Float[Tensor, ""]
    """Sum over the passes, voxels of the 1/2 grid (squared for mse); zero where it has no part."""
    contrast: Float[Tensor, ""]


class Features(NamedTuple):
    """Of the extractor's last block, 1/4 grid."""

    deep_conv: Tensor
    """Its convolution before its normalisation: what the contrast looks at."""
    deep: Tensor


@dataclass(frozen=True, slots=True)
class Phase:
    """Which losses a cycle trains with."""

    registration: bool
    contrast: bool
    frozen_extractor: bool = False


def phase_of(cycle: int, config: TrainConfig) -> Phase:
    """`contrastive` trains g by contrast in the first half of the cycles, then p alone on the frozen g."""
    if config.objective == "contrastive":
        pretraining = cycle < (config.cycles + 1) // 2
        return Phase(registration=not pretraining, contrast=pretraining, frozen_extractor=not pretraining)
    return Phase(registration=True, contrast=config.objective == "joint")


def new_model(config: TrainConfig, *, seed: int, name: str = "trained") -> ConvNetModel:
    """A network with seeded random weights and the plan of passes of the configuration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ConvNetModel(config.network, name)
    with torch.no_grad():
        for head in (getattr(model.head, part, None) for part in ("out", "out4")):
            if head is not None:
                head.weight *= config.head_scale
                head.bias *= config.head_scale
    model.passes = config.passes
    return model


class Objective(nn.Module):
    """The network with its losses; `forward` is one step's."""

    def __init__(self, model: ConvNetModel, config: TrainConfig, *, bf16: bool = False) -> None:
        super().__init__()
        self.model, self.config, self.bf16 = model, config, bf16

    def forward(
        self,
        fixed: Float[Tensor, "B 1 I J K"],
        moving: Float[Tensor, "B 1 I J K"],
        pseudo_vox: Float[Tensor, "B 3 X Y Z"] | None,
        phase: Phase,
        weight: float,
        seed: int,
    ) -> Losses:
        """Losses of a batch whose views and points are drawn from `seed` alone.

        Args:
            pseudo_vox: on the 1/2 grid, in its voxels; None where the phase has no registration loss.
            weight: lambda.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            shape, strengths = fixed.shape[2:], self.config.augment
            a1 = [random_affine(strengths.fixed, shape, generator=generator) for _ in fixed]
            a2 = [random_affine(strengths.moving, shape, generator=generator, after=a) for a in a1]
            originals, affines = torch.cat([fixed, moving]), [*a1, *a2]
            images = view(originals, affines)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not phase.frozen_extractor):
            features = self._extract(images)
        zero = images.new_zeros(())
        registration = contrast = zero
        if phase.registration and pseudo_vox is not None:
            with torch.no_grad():
                target = transport(pseudo_vox, a1, a2, stride=HALF)
            registration = self._registration(images, features, target)
        if phase.contrast:
            with torch.no_grad():
                eligible = valid_region(originals, affines)
            contrast = self._contrast(images, features, eligible, generator)
        return Losses(registration + weight * contrast, registration, contrast)

    def _registration(self, images: Tensor, features: Features, target: Tensor) -> Tensor:
        """Loss of each distinct pass in turn, on what those before it leave (their part is held fixed)."""
        (fixed_deep, moving_deep), moving = features.deep.chunk(2), images.chunk(2)[1]
        config = replace(self.config.coupled_convex, inverse_consistency_steps=0)
        total: Tensor | None = None
        loss = images.new_zeros(())
        for stride in dict.fromkeys(self.config.passes):
            if total is not None:
                with torch.no_grad():
                    warped = warp(moving, full_grid_displacement(total.detach()))
                moving_deep = self._extract(warped).deep
            found = match(self._head(fixed_deep, stride), self._head(moving_deep, stride), config)
            step = half_grid_displacement(found, stride, target.shape[2:])
            total = step if total is None else compose(total.detach(), step)
            loss = loss + registration_loss(
                total, target, kind=self.config.registration_loss, margin=self.config.margin
            )
        return loss

    def _contrast(self, images: Tensor, features: Features, eligible: Tensor, generator: torch.Generator) -> Tensor:
        """Features of the images, moved to where the view sees them, against the view's own features."""
        settings, shape = self.config.contrast, images.shape[2:]
        with torch.no_grad():
            affines = [self._contrast_affine(shape, generator) for _ in images]
            views = images if self.config.views == "intensity" else view(images, affines)
            # The body as it lies in the view: with intensities still the image's own.
            body = views > images.amin() + BACKGROUND_SHARE * (images.amax() - images.amin())
            seen = valid_region(images, affines) & (view(eligible.to(images), affines) > 1 - BACKGROUND_SHARE)
            if self.config.views != "geometric":
                kinds = self.config.augment.appearance
                views = torch.cat([change_appearance(v[None], kinds, generator=generator) for v in views])
            drawable = subsample((body & seen).to(images), QUARTER)[:, 0] > 0
        with self._autocast(views):
            moved = self._third_block(views)
        first, second = [], []
        # Taken apart all at once: each image by itself would have a gradient of the size of all.
        of_images, of_views = features.deep_conv.unbind(), moved.unbind()
        for n, affine in enumerate(affines):
            points = draw_points(drawable[n], settings.points, margin=settings.margin, generator=generator)
            matrix = for_stride(affine, QUARTER).to(points.device, torch.float32)
            seen_at = points.float() @ matrix[:3, :3].T + matrix[:3, 3]
            first.append(features_at(of_images[n][None].float(), seen_at))
            with self._autocast(views):
                conv = self.model.extractor.block4[0].parameters()
                found: Tensor = checkpoint(convolved_at, of_views[n][None], points, *conv, use_reentrant=False)
            second.append(found.float())
        return contrastive_loss(
            torch.cat(first), torch.cat(second), temperature=settings.temperature, negatives=settings.negatives
        )

    def _contrast_affine(self, shape: torch.Size, generator: torch.Generator) -> Affine:
        if self.config.views == "intensity":
            return torch.eye(4, dtype=torch.float64)
        first, second = self.config.augment.contrast
        start = random_affine(first, shape, generator=generator)
        return random_affine(second, shape, generator=generator, after=start)

    def _extract(self, images: Tensor) -> Features:
        conv, norm, activation = self.model.extractor.block4
        assert isinstance(conv, nn.Conv3d)
        with self._autocast(images):
            third = self._third_block(images)
            compiled = use_kernels(third.detach())
            deep_conv = compiled_extractor.convolution(conv, third) if compiled else conv(third)
            return Features(deep_conv, activation(norm(deep_conv)))

    def _third_block(self, images: Tensor) -> Tensor:
        extractor = self.model.extractor
        sequence = extractor.block1, extractor.block2, extractor.block3
        if compiled_extractor.suits(sequence, images):
            return compiled_extractor.blocks(sequence, images)
        images = images.contiguous(memory_format=torch.channels_last_3d)
        if self.config.checkpoint_activations and torch.is_grad_enabled():
            norms = extractor.block1[1], extractor.block2[1]
            shallow = checkpoint(
                lambda x: extractor.block2(extractor.block1(x)), images, use_reentrant=False,
                context_fn=lambda: (nullcontext(), _statistics_kept(norms)),
            )  # fmt: skip
        else:
            shallow = extractor.block2(extractor.block1(images))
        return extractor.block3(shallow)  # type: ignore[no-any-return]

    def _head(self, deep: Tensor, stride: int) -> Tensor:
        """Head features; the 1x1x1 convolution and all after it in fp32: sign and soft-argmin amplify rounding."""
        head = self.model.head
        if stride == QUARTER:
            return head.out4(deep.float())  # type: ignore[no-any-return]
        with self._autocast(deep):
            hidden = head.block(deep)
        return head.out(hidden.float())  # type: ignore[no-any-return]

    @contextmanager
    def _autocast(self, like: Tensor) -> Iterator[None]:
        with torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            yield


@contextmanager
def _statistics_kept(norms: Sequence[nn.Module]) -> Iterator[None]:
    """What is computed a second time does not count a second time in the running statistics."""
    kept = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    try:
        yield
    finally:  # what is computed again is left by an exception as soon as nothing more is needed
        for norm, values in zip(norms, kept, strict=True):
            for name, value in norm.named_buffers():
                value.copy_(values[name])
