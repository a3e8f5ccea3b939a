"""Phantom, stage 3 of 4: HU of each tissue on a contrast-enhanced CT, and the strength of its texture.

Rounded textbook values of the portal venous phase. Bone marrow is that of the spine; cortex is averaged over a voxel of
a few millimetres.
"""

__all__ = ["HU", "TEXTURE_HU"]

HU = {
    "skin": 15.0,
    "fat": -100.0,
    "inner fat": -95.0,
    "mediastinal fat": -85.0,
    "fat between muscles": -50.0,
    "muscle": 52.0,
    "cortex": 850.0,
    "marrow": 280.0,
    "disc": 90.0,
    "cartilage": 140.0,
    "spinal fluid": 20.0,
    "spinal cord": 45.0,
    "lung": -850.0,
    "lung vessel": 60.0,
    "airway": -980.0,
    "gullet": 40.0,
    "heart": 95.0,
    "artery": 170.0,
    "vein": 150.0,
    "portal vein": 160.0,
    "liver": 110.0,
    "liver vein": 150.0,
    "spleen": 120.0,
    "renal cortex": 195.0,
    "renal medulla": 165.0,
    "renal sinus": -10.0,
    "stomach wall": 70.0,
    "stomach": 30.0,
    "stomach gas": -980.0,
    "pancreas": 95.0,
    "bile": 10.0,
    "adrenal": 75.0,
    "bowel wall": 75.0,
    "bowel": 25.0,
    "stool": -10.0,
    "bowel gas": -900.0,
}

TEXTURE_HU = {
    "fat": (5.0, 5.0),
    "inner fat": (5.0, 10.0),
    "mediastinal fat": (5.0, 15.0),
    "muscle": (5.0, 6.0),
    "marrow": (15.0, 30.0),
    "lung": (20.0, 12.0),
    "heart": (3.0, 6.0),
    "liver": (4.0, 6.0),
    "spleen": (3.0, 6.0),
    "renal cortex": (3.0, 6.0),
    "renal medulla": (10.0, 14.0),
    "stomach": (4.0, 6.0),
    "pancreas": (3.0, 10.0),
    "bile": (1.0, 2.0),
    "adrenal": (0.0, 4.0),
    "bowel": (8.0, 10.0),
    "stool": (30.0, 45.0),
}
"""Standard deviations of the coarse and the fine texture; other tissues have none."""
