"""Answers and heat maps as DICOM objects for the archive that the images come from: reports, overlays, parametric maps."""
