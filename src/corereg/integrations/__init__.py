"""corereg inside other programs: MONAI, napari, and the image types of other Python libraries."""
