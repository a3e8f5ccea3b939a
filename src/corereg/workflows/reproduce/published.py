"""The paper's Tables 1 to 3 as data. Source: CoRe (Kats et al.), "Joint Optimization with Contrastive Learning for
Medical Image Registration"."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["INITIAL", "METHODS", "OBJECTIVES", "OURS", "VIEWS", "Published"]


@dataclass(frozen=True, slots=True)
class Published:
    """One row: Dice in %, its standard deviation, SDlogJ and seconds; None where the paper has no figure."""

    dice: float
    sd: float | None = None
    sdlogj: float | None = None
    seconds: float | None = None


INITIAL, OURS = "initial", "CoRe"
"""Rows without registration, and of the method."""

METHODS: Mapping[str, Mapping[str, Published]] = {
    "abdomen-ct": {
        INITIAL: Published(25.9, 7.1),
        "DEEDs": Published(46.5, 8.1, 0.058, 45.2),
        "NiftyReg": Published(34.9, 9.3, 0.034, 123.5),
        "VoxelMorph": Published(35.4, 8.9, 0.134, 0.2),
        "LapIRN": Published(42.4, 8.2, 0.089, 0.7),
        "SAMConvex": Published(49.2, 7.8, 0.096, 5.1),
        "RegCyc": Published(51.1, 7.3, 0.146, 1.2),
        OURS: Published(52.1, 7.5, 0.148, 1.2),
    },
    "chest-ct": {
        INITIAL: Published(34.1, 14.5),
        "DEEDs": Published(88.5, 6.9, 0.049, 45.0),
        "NiftyReg": Published(84.4, 7.4, 0.021, 85.5),
        "VoxelMorph": Published(55.6, 10.3, 0.101, 0.3),
        "LapIRN": Published(83.4, 7.6, 0.075, 0.8),
        "SAMConvex": Published(88.1, 7.1, 0.079, 6.4),
        "RegCyc": Published(87.3, 6.9, 0.106, 1.9),
        OURS: Published(89.4, 6.6, 0.109, 1.9),
    },
}
"""Table 1: methods."""

OBJECTIVES: Mapping[str, Mapping[str, float]] = {
    "abdomen-ct": {"registration": 51.1, "contrastive": 50.3, "joint": 52.1},
    "chest-ct": {"registration": 87.3, "contrastive": 86.7, "joint": 89.4},
}
"""Table 2: Dice in % by training objective."""

VIEWS: Mapping[str, Mapping[str, float]] = {
    "abdomen-ct": {"none": 51.1, "intensity": 49.4, "geometric": 52.1, "both": 50.2},
    "chest-ct": {"none": 87.3, "intensity": 87.5, "geometric": 89.4, "both": 89.3},
}
"""Table 3: Dice in % by the views of the contrast."""
