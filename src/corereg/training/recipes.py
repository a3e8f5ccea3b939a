"""Recipes: full configurations by name, for `--recipe`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from corereg.errors import InputError
from corereg.method.config import PAPER_PASSES, paper_refine
from corereg.method.features.network import NetworkConfig
from corereg.training.config import ContrastConfig, LabelsConfig, PseudoLabelConfig, TrainConfig, training_refine

__all__ = [
    "RECIPES",
    "abdomen_ct",
    "any_contrast",
    "chest_ct",
    "default",
    "get_recipe",
    "head_neck_ct",
    "head_neck_ct_labels",
    "lumir",
    "nlst",
    "thorax_cbct",
    "tiny",
]


def default() -> TrainConfig:
    """The method with the project's own choices: passes on the 1/8 and 1/4 grids, smooth labels, a sample of pairs."""
    return TrainConfig()


def abdomen_ct() -> TrainConfig:
    """The paper's inter-patient abdominal CT at 2 mm: 8 cycles of 1000 steps on all pairs, passes 8,8.

    Intensities are clamped to -200 to 300 HU already in training, which is this project's choice.
    """
    return replace(_paper(), modality="ct-abdomen", pairing="inter", spacing_mm=2.0)


def chest_ct() -> TrainConfig:
    """The paper's longitudinal chest CT: pairs of the same patient at 1.5 mm."""
    paper = _paper()
    return replace(
        paper,
        modality="ct",
        pairing="intra",
        spacing_mm=1.5,
        # Scans of one patient are in few pairs: nothing to keep.
        pseudo_labels=replace(paper.pseudo_labels, encoded_scans=4),
    )


def _paper() -> TrainConfig:
    # Labels and validation share one instance optimisation: `reproduce` searches the paper's working points later.
    return TrainConfig(
        passes=PAPER_PASSES,
        network=NetworkConfig(strides=(8,)),
        contrast=ContrastConfig(negatives_from="image"),
        pseudo_labels=PseudoLabelConfig(pairs=None, refine=paper_refine()),
        validation_refine=paper_refine(),
    )


def head_neck_ct() -> TrainConfig:
    """Inter-patient head-and-neck CT at 3 mm, of which the model on board is made: longer runs gained nothing there."""
    return TrainConfig(
        modality="ct",
        pairing="inter",
        cycles=3,
        steps_per_cycle=150,
        pseudo_labels=PseudoLabelConfig(pairs=64, refine=training_refine(10.0)),
    )


def head_neck_ct_labels() -> TrainConfig:
    """Inter-patient head-and-neck CT at 3 mm, learned from label maps: 8 minutes on an H200."""
    return TrainConfig(
        objective="labels",
        modality="ct",
        pairing="inter",
        cycles=1,
        steps_per_cycle=4000,
        batch_size=4,
        learning_rate=3e-3,
        labels=LabelsConfig(channels=(32, 64, 96, 128), crop=96),
        checkpoint_every=250,
        validation_pairs=6,
    )


def any_contrast() -> TrainConfig:
    """Label maps of one body part, painted anew at every step: scans of any contrast, and no scan is needed. 8 minutes
    on an H200."""
    views = LabelsConfig(
        channels=(32, 64, 128, 192), crop=128, painted=1.0, affine=0.12, bend=4.0, zoom=1.3, slices=4.0
    )
    return replace(head_neck_ct_labels(), modality="mr", steps_per_cycle=10_000, learning_rate=2e-3, labels=views)


def lumir() -> TrainConfig:
    """Learn2Reg's LUMIR: brain MR of different people, already aligned, 160 x 224 x 192 voxels.

    Source: README.md and the evaluation's configuration of https://github.com/JHU-MedImage-Reg/LUMIR_L2R.
    """
    return TrainConfig(modality="mr", pairing="inter", affine="none")


def nlst() -> TrainConfig:
    """Learn2Reg's NLST: two chest CTs of each patient, 224 x 192 x 224 voxels.

    Source: NLST_VAL_evaluation_config.json of https://github.com/MDL-UzL/L2R.
    """
    return _chest_of_one_patient("intra")


def thorax_cbct() -> TrainConfig:
    """Learn2Reg's ThoraxCBCT: cone-beam CTs onto a planning CT of the same patient, 390 x 280 x 300 voxels.

    The pairs are those that the data set lists. Source: ThoraxCBCT_VAL_evaluation_config.json of
    https://github.com/MDL-UzL/L2R, and the data set's own JSON.
    """
    return _chest_of_one_patient("auto")


def _chest_of_one_patient(pairing: Literal["auto", "intra"]) -> TrainConfig:
    return TrainConfig(modality="ct", pairing=pairing, pseudo_labels=PseudoLabelConfig(encoded_scans=4))


def tiny() -> TrainConfig:
    """A few minutes on two CPU cores: enough to beat untrained features on a small cohort, for the demo and tests."""
    return TrainConfig(
        cycles=2,
        steps_per_cycle=40,
        batch_size=1,
        checkpoint_every=40,
        contrast=ContrastConfig(points=500),
        pseudo_labels=PseudoLabelConfig(pairs=8, refine=training_refine(10.0)),
        validation_pairs=3,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "default": default,
    "abdomen-ct": abdomen_ct,
    "any-contrast": any_contrast,
    "chest-ct": chest_ct,
    "head-neck-ct": head_neck_ct,
    "head-neck-ct-labels": head_neck_ct_labels,
    "lumir": lumir,
    "nlst": nlst,
    "thorax-cbct": thorax_cbct,
    "tiny": tiny,
}


def get_recipe(name: str) -> TrainConfig:
    """The configuration called `name`.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"got the recipe {name!r}, expected one of {', '.join(RECIPES)}; choose one")
    return RECIPES[name]()
