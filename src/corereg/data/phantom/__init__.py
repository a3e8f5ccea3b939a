"""Phantom: labelled synthetic CT of the trunk with exactly known motion, for demonstrations, tests and pre-training.

A patient's image is a function of position, evaluated at each voxel; no image is ever interpolated. The stages:

1. `shapes`, `tubes`: signed distances, and the canvas on which they are painted with soft edges.
2. `motion`: smooth maps of position: textures, a patient's body shape, breathing.
3. `torso`, `tissues`, `wall`, `bowel`, `chest`, `abdomen`: the anatomy, assembled by `anatomy`.
4. `images`: grids, noise, breathing pairs; `cohort`: a Learn2Reg data set on disk.
"""

from corereg.data.phantom.cohort import write_cohort
from corereg.data.phantom.images import KINDS, LABELS, BreathingPair, make_breathing_pair, make_subject

__all__ = ["KINDS", "LABELS", "BreathingPair", "make_breathing_pair", "make_subject", "write_cohort"]
