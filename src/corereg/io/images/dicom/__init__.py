"""A DICOM folder -> one volume: headers, choice of the series, stack of its frames, pixels."""
