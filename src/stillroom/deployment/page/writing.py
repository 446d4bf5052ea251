"""Puts the page together: template, words, notes on the model, engine, runtime and model, in one file."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.page.notes import notes_on
from stillroom.deployment.page.runtime import Package, licences, packages
from stillroom.deployment.page.scripts import HERE, joined, lean, of_others
from stillroom.deployment.predictor import MODEL_FILE, Predictor
from stillroom.errors import UsageError
from stillroom.files.atomic import write_atomically

LANGUAGES = tuple(
    sorted((file.stem for file in (HERE / "texts").glob("*.json")), key=lambda name: (name != "en", name))
)
"""Those that the page speaks, English first: a table of words is a language."""
_CARD = "MODEL_CARD.md"
_METRICS = "metrics.json"


def write_page(source: Path | str, out: Path | str, *, language: str | None = None) -> Path:
    """Write the page of a model.

    Args:
        source: a finished run's folder, or an exported .onnx file.
        out: the HTML file; one of that name is written over.
        language: in which the page opens, of :data:`LANGUAGES`; None for the browser's, English where
            that is none of them. It can be changed there.

    Raises:
        UsageError: there is no such model or language, the model is an ensemble of several, or the runtime is not here.
    """
    target = Path(out)
    page = page_of(source, language=language)
    if target.is_dir() or not target.parent.is_dir():
        raise UsageError(f"{target} cannot be written: name a file in a folder that is there.")
    write_atomically(target, lambda path: path.write_text(page, "utf-8"))
    return target


def page_of(source: Path | str, *, language: str | None = None) -> str:
    """The page as text; takes and raises what :func:`write_page` does."""
    if language is not None and language not in LANGUAGES:
        raise UsageError(f"The page speaks no {language!r}, but: {', '.join(LANGUAGES)}.")
    predictor = Predictor.load(source)
    folder = Path(source) if Path(source).is_dir() else None
    model = (folder / MODEL_FILE if folder else Path(source)).read_bytes()
    card = folder / _CARD if folder else None
    texts = {name: json.loads((HERE / "texts" / f"{name}.json").read_text("utf-8")) for name in LANGUAGES}
    metrics = folder / _METRICS if folder else None
    measured = json.loads(metrics.read_text("utf-8")).get("ood") if metrics and metrics.is_file() else None
    meta = notes_on(predictor, texts, measured) | {
        "card": card.read_text("utf-8") if card and card.is_file() else None,
        "licences": licences(),
    }
    return _assembled(meta, texts, language, model, predictor.metadata)


def _assembled(
    meta: dict[str, Any], texts: dict[str, dict[str, str]], language: str | None, model: bytes, metadata: ModelMetadata
) -> str:
    runtime = packages()["onnxruntime-web"]
    data = {"meta": meta, "texts": texts, "language": language}
    first = language or LANGUAGES[0]  # until the page's script runs
    script = joined(HERE / "engine" / "start.js")
    parts = [
        _part("data", _packed(json.dumps(data).encode())),
        _part("worker", _packed(_worker().encode())),
        _part("wasm", runtime.packed("dist/ort-wasm-simd-threaded.wasm")),
        _part("model", _packed(model)),
    ]
    return Template((HERE / "face" / "page.html").read_text("utf-8")).substitute(
        language=first,
        policy=_policy(script),
        **{
            key.rpartition(".")[2]: escape(texts[first][key])
            for key in ("page.title", "page.noscript", "page.damaged", "standing.device", "standing.research")
        },
        style=lean((HERE / "face" / "page.css").read_text("utf-8")),
        data="\n".join(parts),
        script=f'<script type="module">{script}</script>',
    )


def _policy(script: str) -> str:
    """What the page may do: run this one script and the worker that it makes. Nothing can be fetched or sent."""
    digest = b64encode(sha256(script.encode()).digest()).decode()
    rules = {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}' 'wasm-unsafe-eval'",
        "worker-src": "blob:",
        "style-src": "'unsafe-inline'",
        "img-src": "blob: data:",
        "connect-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _worker() -> str:
    """The worker's script, with the libraries that it calls before it."""
    known = packages()
    codecs = {
        "jpeg": (known["@jsquash/jpeg"], "codec/dec/mozjpeg_dec"),
        "webp": (known["@jsquash/webp"], "codec/dec/webp_dec"),
    }

    def codec(name: str, package: Package, stem: str) -> str:
        packed = b64encode(package.packed(f"{stem}.wasm")).decode()
        return f'{of_others(f"{name}Codec", package.read(f"{stem}.js").decode())}\nCODECS.{name} = [{name}Codec, "{packed}"];'

    return "\n".join(
        [
            '"use strict";',
            of_others("ort", known["onnxruntime-web"].read("dist/ort.wasm.bundle.min.mjs").decode()),
            "const CODECS = {};",
            *(codec(name, *place) for name, place in codecs.items()),
            joined(HERE / "engine" / "worker.js"),
        ]
    )


def _packed(content: bytes) -> bytes:
    """gzip ends with a CRC-32 and the length, which the browser compares: of no part that is damaged a byte is used."""
    return gzip.compress(content, 9, mtime=0)


def _part(name: str, packed: bytes) -> str:
    """A part of the page; no name or card in it can break out of base64."""
    return f'<script type="text/plain" id="part-{name}">{b64encode(packed).decode()}</script>'
