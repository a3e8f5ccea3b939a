"""corereg in the hands of other programs: MONAI, napari, and the image types of Python."""
