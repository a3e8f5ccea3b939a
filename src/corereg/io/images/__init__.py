"""Images in and out: files, DICOM folders, and the objects of other libraries."""
