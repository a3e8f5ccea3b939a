"""Calls that a type checker must refuse. Mypy checks them with the package, and an ignored line without an error is
itself an error. Never run."""

import corereg


def mistyped() -> None:
    corereg.register("a.nii", "b.nii", regularisation=3, passes=[8, 4], affine="none", fixed_mask=None, seed=None)
    corereg.register("a.nii", "b.nii", regularisaton=3)  # type: ignore[call-arg]
    corereg.register("a.nii", "b.nii", affine="rigidly")  # type: ignore[arg-type]
    corereg.register("a.nii", "b.nii", refine_steps="ten")  # type: ignore[arg-type]
