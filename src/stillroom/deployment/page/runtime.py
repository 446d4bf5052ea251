"""What others wrote that runs in the page: ONNX Runtime and the decoders of JPEG and WebP, compiled to WebAssembly.

They are files of packages of npm, pinned in ``pins.json`` by version and digest. :mod:`stillroom.deployment.page.bring`
brings them, once, into ``vendor/`` beside this file; a wheel holds them.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError

HERE = Path(__file__).parent
VENDOR = HERE / "vendor"
_HOW = "python -m stillroom.deployment.page.bring"


@dataclass(frozen=True)
class Package:
    """A package of npm, of which some files run in the page.

    Attributes:
        name, version: as npm knows it.
        integrity: the archive's digest as npm writes it, ``sha512-`` and base64.
        licence: its SPDX name.
        files: those that are kept, by their place in the package.
    """

    name: str
    version: str
    integrity: str
    licence: str
    files: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return VENDOR / f"{self.name.strip('@').replace('/', '-')}-{self.version}"

    def kept(self, file: str) -> Path:
        """Where a file is kept; WebAssembly is gzip-packed."""
        name = Path(file).name
        return self.folder / (f"{name}.gz" if name.endswith(".wasm") else name)

    def read(self, file: str) -> bytes:
        """One of its files. Raises UsageError, which says how to get it, where it is not there."""
        kept = self.kept(file)
        try:
            content = kept.read_bytes()
        except FileNotFoundError:
            raise UsageError(
                f"The page's {self.name} is not here: `{_HOW}` brings it (from npm, or with what `make install` installs)."
            ) from None
        return gzip.decompress(content) if kept.suffix == ".gz" else content

    def packed(self, file: str) -> bytes:
        """A file of WebAssembly as it is kept, gzip-packed."""
        self.read(file)
        return self.kept(file).read_bytes()


def packages() -> dict[str, Package]:
    """What is pinned, by name."""
    pins: dict[str, dict[str, Any]] = json.loads((HERE / "pins.json").read_text("utf-8"))
    return {name: Package(name, **{**pin, "files": tuple(pin["files"])}) for name, pin in pins.items()}


def licences() -> str:
    """The licences of all that runs in the page, as they must be passed on."""
    told = []
    for package in packages().values():
        texts = [package.read(file).decode("utf-8").strip() for file in package.files if "LICENSE" in file]
        if not texts:  # npm's package has none; Python's package of the same source does
            texts = [str(distribution("onnxruntime").locate_file("onnxruntime/LICENSE"))]
            texts = [Path(texts[0]).read_text("utf-8").strip()]
        told.append("\n\n".join([f"{package.name} {package.version} ({package.licence})", *texts]))
    return "\n\n\n".join(told) + "\n"
