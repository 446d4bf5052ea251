"""A network in an ONNX file, asked by ONNX Runtime: a teacher that cannot be trained, and needs nothing but its answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from stillroom.errors import RunError, UsageError
from stillroom.files.digests import require_whole
from stillroom.files.own_digest import own_state
from stillroom.models.normalisation import Normalisation
from stillroom.models.origins.base import Origin, Provenance, no_published_weights
from stillroom.models.origins.brought import Backbone, shape_of
from stillroom.models.specification import Says, Size, Specification
from stillroom.settings.network_names import parse, side_told

_OURS = "stillroom."
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


@dataclass(frozen=True)
class Layout:
    """How the file takes images.

    Attributes:
        name: of its input.
        dtype: of its values.
        channels: 1 or 3.
        last: whether channels come last.
        side: in pixels; None where it takes any.
        batch: how many at once; None where it takes any number.
    """

    name: str
    dtype: Any
    channels: int
    last: bool
    side: int | None
    batch: int | None


class Session(nn.Module):
    """The file as a module: normalised images ``[B, 3, S, S]`` to its output ``[B, ...]`` float32. It has no gradient.

    Its weights are not parameters; the buffer ``content`` is the digest of the file, so that a bank knows it.
    """

    content: Tensor
    opaque = True

    def __init__(self, file: Path, session: onnxruntime.InferenceSession, layout: Layout, output: str) -> None:
        super().__init__()
        self.file, self.session, self.layout, self.output = file, session, layout, output
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).digest()
        self.register_buffer("content", torch.tensor(list(digest), dtype=torch.uint8))

    def forward(self, images: Tensor) -> Tensor:
        layout = self.layout
        shown = images.detach().cpu().float()
        shown = shown[:, :1] if layout.channels == 1 else shown
        pixels = (shown.permute(0, 2, 3, 1) if layout.last else shown).contiguous().numpy().astype(layout.dtype)
        step = layout.batch or len(pixels)
        said = [self._ask(pixels[at : at + step], step) for at in range(0, len(pixels), step)]
        return torch.from_numpy(np.concatenate(said)).to(images.device)

    def _ask(self, pixels: np.ndarray, step: int) -> np.ndarray:
        short = step - len(pixels)
        if short:  # a file made for a fixed number of images gets that many
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], short, axis=0)])
        try:
            found = self.session.run([self.output], {self.layout.name: pixels})[0]
        except Exception as error:  # ONNX Runtime's own kinds
            raise RunError(
                f"{self.file} failed on a batch of {len(pixels)} images: {str(error).splitlines()[0]}."
            ) from error
        return np.asarray(found, dtype=np.float32)[: len(pixels) - short]

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        return self  # it has no state that could change


@dataclass(frozen=True)
class OnnxFile(Origin):
    """The network of an ONNX file.

    Args:
        name: the user's.
        file: where it is.
        told: ``outputs`` and ``size``, ``mean``, ``std``, ``classes``, where its metadata do not say; ``output``, the name of
            the output that is meant, of several.
    """

    name: str
    file: Path
    told: Mapping[str, str]

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        if not self.file.is_file():
            raise UsageError(
                f"No ONNX file at {self.file}. Put it back where it was, or name the place that it has now."
            )
        if own_state(self.file) == "damaged":
            raise UsageError(
                f"{self.file} was changed or damaged after it was exported: copy it again, or export it again."
            )
        require_whole(self.file, "copy it again, or export it again")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            return onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UsageError(f"{self.file} cannot be read as an ONNX file: {str(error).splitlines()[0]}.") from error

    @cached_property
    def notes(self) -> dict[str, Any]:
        """What a file of ours says of itself: ``size``, ``classes``; empty for others."""
        stated = self.session.get_modelmeta().custom_metadata_map
        try:
            found = {key.removeprefix(_OURS): json.loads(text) for key, text in stated.items() if key.startswith(_OURS)}
            return {"size": int(found["size"]), "classes": tuple(found["task"]["classes"])} if found else {}
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{self.file} carries damaged Stillroom metadata: export it again.") from None

    @cached_property
    def layout(self) -> Layout:
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise UsageError(
                f"{self.file} has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); wanted is one: images."
            )
        given, shape = inputs[0], [size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape]
        if given.type not in _TYPES or len(shape) != 4:
            raise UsageError(
                f"{self.file} takes {given.type} {given.shape}; wanted are floating images of four dimensions."
            )
        last = shape[1] not in (1, 3) and shape[3] in (1, 3)
        channels = shape[3] if last else shape[1]
        height, width = shape[1:3] if last else shape[2:4]
        if channels not in (1, 3) or height != width:
            raise UsageError(f"{self.file} takes images {given.shape}; wanted are square ones of 1 or 3 channels.")
        return Layout(given.name, _TYPES[given.type], channels, last, height, shape[0])

    @cached_property
    def output(self) -> str:
        """The name of the output that is asked for."""
        names = [output.name for output in self.session.get_outputs()]
        wanted = self.told.get("output") or (self.told.get("outputs") if self.notes else None)
        wanted = wanted or ("logits" if self.notes else names[0] if len(names) == 1 else None)
        if wanted is None or wanted not in names:
            said = "it is not said which is meant" if wanted is None else f"there is no {wanted!r}"
            raise UsageError(
                f"{self.file} has the outputs {', '.join(names)}; {said}. Write {self.file.name}?output={names[0]}."
            )
        return wanted

    @cached_property
    def specification(self) -> Specification:
        says: Says | None = "logits" if self.notes else None
        told = self.told.get("outputs", says)
        if told not in ("features", "logits", "probabilities"):
            raise UsageError(
                f"{self.file} does not say what it answers. Give --teacher-outputs features, logits or probabilities."
            )
        asked = side_told(parse(self.name)) or 0
        side = self.layout.side or asked or self.notes.get("size")
        if asked and asked != side:
            raise UsageError(f"{self.file} takes images of {side} pixels; {asked} is another size.")
        if not side:
            raise UsageError(f"{self.file} takes images of any size: say which by --teacher-size.")
        if not self.notes and not {"mean", "std"} <= self.told.keys():
            raise UsageError(
                f"{self.file} does not say how its pixels are scaled. Give --teacher-mean and --teacher-std (of pixels in "
                "[0, 1]; 0 and 1 where it scales them itself)."
            )
        return Specification(
            native_size=side,
            fixed_size=True,
            normalisation=Normalisation((0.0,) * 3, (1.0,) * 3),  # ours scale inside; what is told takes its place
            family="onnx",
            hub=None,
            says=told,  # type: ignore[arg-type]
            classes=self.notes.get("classes", ()),
            brings_weights=True,
            trainable=False,
        )

    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        spec = self.specification
        module = Session(self.file, self.session, self.layout, self.output)
        answer = shape_of(self.name, module, _as_it_is, input_size)
        head = nn.Linear(answer[1], classes) if classes and spec.says == "features" else nn.Identity()
        return Backbone(module, _as_it_is, head)

    def locate(self) -> Path:
        raise no_published_weights(self.name)

    def provenance(self, file: Path | None) -> Provenance:
        return Provenance(str(self.file))


def _as_it_is(said: Tensor) -> Tensor:
    return said
