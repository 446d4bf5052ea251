"""DICOM files made on the spot, with a patient planted in every element that may hold one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

PLANTED = {
    "PatientName": "Zebulon^Quagmire",
    "PatientBirthDate": "19440606",
    "PatientAddress": "7 Xylophone Lane",
    "OtherPatientIDs": "OTHER-55331",
    "ReferringPhysicianName": "Doctor^Wobblethorpe",
    "InstitutionName": "Brimblecombe Infirmary",
    "AccessionNumber": "ACC-918273",
    "StudyDate": "20190317",
    "ContentDate": "20190318",
    "StudyDescription": "Follow-up of Quagmire",
    "PatientComments": "Quagmire of Xylophone Lane",
}
"""Elements that tell who a patient is, with texts that stand nowhere else."""
IDENTITY = "PID-772204"
SECRETS = (
    *("Zebulon", "Quagmire", "19440606", "Xylophone", "55331", "Wobblethorpe", "Brimblecombe", "918273", "20190317"),
    *("20190318", "772204", "Snickerdoodle"),
)
"""What must not be found anywhere but in the files themselves."""


def write_dicom(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    """A file of grey ``[H, W]`` or ``[N, H, W]``, or RGB ``[H, W, 3]`` pixels, explicit little-endian.

    Args:
        path: where it goes.
        pixels: uint8, uint16 or int16.
        elements: by keyword, over those that are made up; None leaves one out. ``syntax`` is the transfer syntax.
    """
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    bits = 8 * pixels.itemsize
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
    rows, columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    made = PLANTED | {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "Modality": "CT",
        "PatientID": IDENTITY,
        "BurnedInAnnotation": "NO",
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "PlanarConfiguration": 0 if colour else None,
        "NumberOfFrames": None if colour or pixels.ndim == 2 else len(pixels),
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    for keyword, value in (made | elements).items():
        if value is not None and keyword != "private":
            setattr(data, keyword, value)
    if "HighBit" not in elements:
        data.HighBit = data.BitsStored - 1
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        data.SOPClassUID,
        data.SOPInstanceUID,
    )
    if elements.get("private"):
        data.private_block(0x0011, "MAKER", create=True).add_new(0x01, "LO", elements["private"])
    content = np.ascontiguousarray(pixels).tobytes()
    data.PixelData = content + b"\0" * (len(content) % 2)
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_set(folder: Path, patients: int = 12, images: int = 2, side: int = 24, **elements: Any) -> Path:
    """Class folders ``well`` and ``ill`` of CT slices, whose files have no endings; a bright square is ill."""
    rng = np.random.default_rng(0)
    for patient in range(patients):
        name = ("well", "ill")[patient % 2]
        study = generate_uid()
        for image in range(images):
            pixels = rng.integers(-200, 0, (side, side)).astype(np.int16)
            if name == "ill":
                pixels[6:14, 6:14] += 700
            about = {
                "RescaleSlope": 1,
                "RescaleIntercept": -24,
                "WindowCenter": 40,
                "WindowWidth": 400,
                "PatientID": f"{IDENTITY}-{patient}",
                "StudyInstanceUID": study,
            }
            write_dicom(folder / name / f"p{patient}" / f"IM{image}", pixels, **(about | elements))
    return folder
