"""Phantom, stage 3 of 4: one patient's anatomy, rendered at any positions.

Upstream: motion, wall, chest, abdomen. Downstream: images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.data.phantom.abdomen import Organs, build_organs, draw_hepatic, draw_poses, paint_organs
from corereg.data.phantom.bowel import Bowel, draw_bowel, paint_bowel
from corereg.data.phantom.chest import draw_pulmonary, paint_chest, paint_great_vessels
from corereg.data.phantom.motion import SubjectMap, Waves, draw_subject_map, draw_texture
from corereg.data.phantom.shapes import Array, Canvas, Coords
from corereg.data.phantom.torso import Frame, Habitus, draw_habitus
from corereg.data.phantom.tubes import Tree
from corereg.data.phantom.wall import paint_skeleton, paint_wall

__all__ = ["LABELS", "Subject", "draw_subject"]

LABELS: dict[str, dict[str, int]] = {
    "abdomen": {
        "spleen": 1,
        "right kidney": 2,
        "left kidney": 3,
        "gall bladder": 4,
        "oesophagus": 5,
        "liver": 6,
        "stomach": 7,
        "aorta": 8,
        "inferior vena cava": 9,
        "portal and splenic vein": 10,
        "pancreas": 11,
        "left adrenal gland": 12,
        "right adrenal gland": 13,
    },
    "chest": {
        "right lung": 1,
        "left lung": 2,
        "heart": 3,
        "aorta": 4,
        "trachea": 5,
        "oesophagus": 6,
        "liver": 7,
        "spine": 8,
        "sternum": 9,
        "ribs": 10,
    },
}
"""Label number of each structure. "abdomen" has the organs and numbers of Learn2Reg's AbdomenCTCT."""

COARSE_MM, FINE_MM = (28.0, 70.0), (9.0, 22.0)
"""Wavelengths of the coarse and the fine texture."""


@dataclass(frozen=True)
class Subject:
    """One patient: everything that `render` needs, independent of any grid."""

    shape: SubjectMap
    habitus: Habitus
    organs: Organs
    textures: tuple[Waves, Waves]
    pulmonary: dict[int, list[Tree]]
    hepatic: list[Tree]
    bowel: Bowel

    def render(self, coords: Coords, spacing_mm: float, kind: str) -> tuple[Array, NDArray[np.uint8]]:
        """Noise-free HU and labels at world positions (three arrays (I, J, K), millimetres, RAS+).

        Both depend on the position alone, so that the image at moved positions is exactly the moved image.
        """
        atlas = self.shape(coords)
        coarse, fine = (waves.at(atlas)[0] for waves in self.textures)
        canvas = Canvas(np.stack(atlas), spacing_mm, LABELS[kind], (coarse, fine))
        frame = Frame(canvas.coords, self.habitus)
        paint_wall(canvas, frame)
        paint_bowel(canvas, self.bowel)
        paint_chest(canvas, frame, self.pulmonary)
        paint_skeleton(canvas, frame)
        paint_organs(canvas, self.organs, self.hepatic)
        paint_great_vessels(canvas)
        return canvas.image, canvas.labels


def draw_subject(rng: np.random.Generator) -> Subject:
    """Draw a patient at random."""
    shape, habitus = draw_subject_map(rng), draw_habitus(rng)
    organs = build_organs(draw_poses(rng), habitus)
    textures = (draw_texture(rng, COARSE_MM), draw_texture(rng, FINE_MM))
    return Subject(shape, habitus, organs, textures, draw_pulmonary(rng), draw_hepatic(rng), draw_bowel(rng))
