"""Predictions for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from stillroom.deployment.prediction import Prediction
from stillroom.shown import shown

_BAR = 30  # characters of a bar at probability 1


def prediction_table(predictions: Sequence[Prediction], *, synthetic: bool = False, top: int = 5) -> Table:
    """A table for the terminal: per image its most probable classes with bars, those decided for in bold; of one that is
    refused that alone, for its probabilities mean nothing.

    Args:
        predictions: from :meth:`Predictor.predict`.
        synthetic: say that the model was trained on synthetic images (:attr:`Predictor.synthetic`).
        top: classes shown per image.
    """
    caption = "Trained on synthetic images: for trying out only." if synthetic else None
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for heading in ("image", "answer", "class", "probability", ""):
        table.add_column(heading, justify="right" if heading == "probability" else "left")
    for number, prediction in enumerate(predictions, start=1):
        image = Text(f"image {number}" if prediction.path is None else shown(prediction.name))
        if prediction.error is not None:
            table.add_row(image, Text(shown(prediction.error), style="red"))
            continue
        answer = Text(shown(prediction.answer or ""), "yellow" if prediction.foreign else "bold")
        flags = Text(shown(prediction.flags), "yellow")
        ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:top]
        for name, probability in () if prediction.foreign else ranked:
            style = "bold" if name in prediction.decision else "dim"
            bar = "█" * round(_BAR * probability)
            table.add_row(image, answer, Text(shown(name), style), Text(f"{probability:.1%}", style), Text(bar, "cyan"))
            image, answer, flags = Text(), flags, Text()
        if answer:
            table.add_row(image, answer)
        if prediction.note:
            table.add_row(Text(), Text(prediction.note, style="yellow"))
    return table
