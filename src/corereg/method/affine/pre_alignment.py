"""Which pre-alignment a pair gets, by the settings. Upstream: the scans as read. Downstream: `register`."""

from collections.abc import Sequence
from dataclasses import replace

from corereg.method.affine.align import INITIAL, Alignment, align
from corereg.method.affine.coarse_copies import CoarseCopy
from corereg.method.config import RegisterConfig

__all__ = ["pre_alignment"]


def pre_alignment(copies: Sequence[CoarseCopy], config: RegisterConfig, *, started: bool) -> Alignment | None:
    """The pre-alignment of copies of a fixed and a moving scan; None if the settings exclude one.

    Args:
        started: whether an initial transform has already placed the moving scan.
    """
    if config.affine == "none" or (config.affine == "auto" and started):
        return None
    found = align(
        *copies,
        seed=config.stages.seed,
        rigid=config.affine.startswith("rigid"),
        only_from_identity=started,
        any_gain=not config.deforms,
    )
    return replace(found, start=INITIAL) if started else found
