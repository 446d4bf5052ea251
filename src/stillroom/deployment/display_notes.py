"""What is said of a DICOM image that is not shown as the training images were."""

from __future__ import annotations

from typing import BinaryIO

from stillroom.data.dicom.grey import Shown
from stillroom.data.dicom.headers import own_display
from stillroom.deployment.metadata import ModelMetadata
from stillroom.settings.windows import parse_window


def note_on_display(metadata: ModelMetadata, file: BinaryIO, frame: int) -> str | None:
    """What one should know of how a frame is shown; None where it is as in training, or nothing is known of that.

    Args:
        metadata: of the model that is asked.
        file: open; any kind of image.
        frame: from 0.
    """
    if not metadata.shown or "asked" in metadata.shown or (own := own_display(file, frame)) is None:
        return None
    if window := parse_window(metadata.window):
        if own == Shown("window", window.centre, window.width):
            return None
        what = {"range": "names no window", "table": "has a lookup table of its own"}.get(
            own.by, "has a window of its own"
        )
        return f"it {what}, and is shown in the window of all training images, {metadata.window}"
    if own.by == "range" and "range" not in metadata.shown:
        return "it names no window, unlike the training images, and is shown over its whole range: give it theirs"
    if own.by != "range" and metadata.shown == ("range",):
        return "it is shown in its own window, where the training images, which named none, were shown over their whole range"
    return None
