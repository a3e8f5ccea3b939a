"""The joint objective of CoRe for one batch of pairs: L = L_reg + lambda L_con (4).

Everything that a training step sends through the network is here, so that one forward of one module is one step, as
distributed training requires. The augmented images of the registration loss are the originals of the contrastive loss:
each is encoded once.

Legend: B pairs, S = 2 B images (fixed ones first), I J K axes of the working grid, X Y Z of the 1/2 grid.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
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
from corereg.method.coarse.passes import full_grid_displacement, half_grid_displacement
from corereg.method.features.network import ConvNetModel, DeepOutputs
from corereg.training.config import TrainConfig
from corereg.training.objective import compiled_blocks
from corereg.training.objective.losses import (
    Places,
    contrastive_loss,
    convolved_at,
    draw_points,
    features_at,
    registration_loss,
)
from corereg.training.objective.matches import HALF, QUARTER, SEEN, Matches, air_value, mapped
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


class Losses(NamedTuple):
    """Losses of one batch."""

    total: Float[Tensor, ""]
    registration: Float[Tensor, ""]
    """Sum over the passes, in voxels of the 1/2 grid (squared for mse); zero in a phase without it."""
    contrast: Float[Tensor, ""]
    """Zero in a phase without it."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The losses that a cycle trains with."""

    registration: bool
    contrast: bool
    frozen_extractor: bool = False


def phase_of(cycle: int, config: TrainConfig) -> Phase:
    """The phase of a cycle: `contrastive` trains g by contrast in the first half, then p alone on the frozen g."""
    if config.objective == "contrastive":
        pretraining = cycle < (config.cycles + 1) // 2
        return Phase(registration=not pretraining, contrast=pretraining, frozen_extractor=not pretraining)
    return Phase(registration=True, contrast=config.objective == "joint")


def new_model(config: TrainConfig, *, seed: int, name: str = "trained") -> ConvNetModel:
    """A network with seeded random weights and the passes of the configuration."""
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
    """The network with its losses; one `forward` is one training step."""

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
        trusted: Float[Tensor, "B 1 X Y Z"] | None = None,
    ) -> Losses:
        """Losses of a batch; views and points depend on `seed` alone.

        Args:
            pseudo_vox: pseudo-labels on the 1/2 grid, in its voxels; None in a phase without registration loss.
            weight: lambda.
            trusted: 1 where the contrast may take a pseudo-label's two ends as positives; None takes none.
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
        target = None
        if phase.registration and pseudo_vox is not None:
            with torch.no_grad():
                target = transport(pseudo_vox, a1, a2, stride=HALF)
            registration = self._registration(images, features, target)
        if phase.contrast:
            with torch.no_grad():
                eligible = valid_region(originals, affines)
                matches = None
                if target is not None and trusted is not None:
                    seen = view(trusted, [for_stride(affine, HALF) for affine in a1]) > SEEN
                    matches = Matches(target, seen & subsample(eligible[: len(fixed)], HALF))
            contrast = self._contrast(images, features, eligible, affines, generator, matches)
        return Losses(registration + weight * contrast, registration, contrast)

    def _registration(self, images: Tensor, features: DeepOutputs, target: Tensor) -> Tensor:
        """Sum of the losses of all distinct passes; each continues from the previous ones, which are held fixed."""
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

    def _contrast(
        self,
        images: Tensor,
        features: DeepOutputs,
        eligible: Tensor,
        originals: Sequence[Affine],
        generator: torch.Generator,
        matches: Matches | None = None,
    ) -> Tensor:
        """Contrastive loss between features of the images, sampled where the view sees them, and the view's own; and
        between those of two images at their matches.

        Args:
            originals: the maps from the images to the scans that they are views of.
        """
        settings, shape = self.config.contrast, images.shape[2:]
        with torch.no_grad():
            affines = [self._contrast_affine(shape, generator) for _ in images]
            views = images if self.config.views == "intensity" else view(images, affines)
            # The body is found in the view before its appearance, and with it its intensities, may change.
            body = views > air_value(images)
            seen = valid_region(images, affines) & (view(eligible.to(images), affines) > SEEN)
            if self.config.views != "geometric":
                kinds = self.config.augment.appearance
                views = torch.cat([change_appearance(v[None], kinds, generator=generator) for v in views])
            drawable = subsample((body & seen).to(images), QUARTER)[:, 0] > 0
        with self._autocast(views):
            moved = self._third_block(views)
        first, second, places = [], [], []
        # Unbound all at once: indexing one image at a time would give each a gradient of the size of the whole batch.
        of_images, of_views = features.deep_conv.unbind(), moved.unbind()
        for n, affine in enumerate(affines):
            points = draw_points(drawable[n], settings.points, margin=settings.margin, generator=generator)
            seen_at = mapped(affine, points.float())
            first.append(features_at(of_images[n][None].float(), seen_at))
            places.append(mapped(originals[n], seen_at))
            with self._autocast(views):
                conv = self.model.extractor.block4[0].parameters()
                found: Tensor = checkpoint(convolved_at, of_views[n][None], points, *conv, use_reentrant=False)
            second.append(found.float())
        for n in range(0 if matches is None else len(originals) // 2):
            assert matches is not None
            m = len(originals) // 2 + n
            points, partners = matches.drawn(n, images[n] > air_value(images), originals[m], settings, generator)
            if len(points):
                first.append(features_at(of_images[n][None].float(), points))
                second.append(features_at(of_images[m][None].float(), partners))
                places.append(mapped(originals[n], points))
        loss = partial(contrastive_loss, temperature=settings.temperature, negatives=settings.negatives)
        if settings.negatives_from == "image":
            return torch.stack([loss(z, other) for z, other in zip(first, second, strict=True)]).mean()
        everywhere = None
        if settings.negatives_from == "elsewhere":
            counts = torch.tensor([len(points) for points in places], device=images.device)
            image = torch.arange(len(places), device=images.device).repeat_interleave(counts)
            everywhere = Places(torch.cat(places), image, settings.same_place)
        return loss(torch.cat(first), torch.cat(second), places=everywhere)

    def _contrast_affine(self, shape: torch.Size, generator: torch.Generator) -> Affine:
        if self.config.views == "intensity":
            return torch.eye(4, dtype=torch.float64)
        first, second = self.config.augment.contrast
        start = random_affine(first, shape, generator=generator)
        return random_affine(second, shape, generator=generator, after=start)

    def _extract(self, images: Tensor) -> DeepOutputs:
        with self._autocast(images):
            third = self._third_block(images)
            if use_kernels(third.detach()):
                return self.model.extractor.after_block3(third, convolve=compiled_blocks.convolution)
            return self.model.extractor.after_block3(third)

    def _third_block(self, images: Tensor) -> Tensor:
        extractor = self.model.extractor
        if compiled_blocks.suits(extractor.blocks[:3], images):
            return compiled_blocks.blocks(extractor.blocks[:3], images)
        images = images.contiguous(memory_format=torch.channels_last_3d)
        if self.config.checkpoint_activations and torch.is_grad_enabled():
            norms = extractor.block1[1], extractor.block2[1]
            shallow = checkpoint(
                extractor.shallow, images, use_reentrant=False,
                context_fn=lambda: (nullcontext(), _statistics_kept(norms)),
            )  # fmt: skip
        else:
            shallow = extractor.shallow(images)
        return extractor.block3(shallow)  # type: ignore[no-any-return]

    def _head(self, deep: Tensor, stride: int) -> Tensor:
        return self.model.head(deep, stride, run_block=self._run_block)  # type: ignore[no-any-return]

    def _run_block(self, block: nn.Sequential, source: Tensor) -> Tensor:
        with self._autocast(source):
            return block(source)  # type: ignore[no-any-return]

    @contextmanager
    def _autocast(self, like: Tensor) -> Iterator[None]:
        with torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            yield


@contextmanager
def _statistics_kept(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Keep activations that are computed a second time from counting twice in the running statistics."""
    kept = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    try:
        yield
    finally:  # recomputation ends with an exception as soon as everything needed is there
        for norm, values in zip(norms, kept, strict=True):
            for name, value in norm.named_buffers():
                value.copy_(values[name])
