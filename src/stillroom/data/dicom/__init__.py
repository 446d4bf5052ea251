"""DICOM files: recognised, decoded to the two forms of an image reader, and told of without naming a patient."""
