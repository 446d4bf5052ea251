"""What the plain install leaves out, by the extra that brings it: ``pip install 'stillroom[train]'``."""

from __future__ import annotations

from importlib.util import find_spec

from stillroom.errors import NotInstalled

_LEARNING = (
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "sklearn",
    "safetensors",
    "medmnist",
    "huggingface_hub",
)
_FILES = ("pandas", "pyarrow", "pydantic", "yaml", "filelock", "truststore", "onnx", "onnxscript")
_PAGES = ("jinja2", "matplotlib", "threadpoolctl")

EXTRAS = {
    "evaluate": ("scipy",),
    "serve": ("fastapi", "uvicorn", "httptools", "uvloop", "python_multipart", "prometheus_client"),
    "dicom": ("highdicom", "pylibjpeg", "openjpeg", "jpeg_ls", "gdcm"),
    "train": (*_LEARNING, *_FILES, *_PAGES),
}
"""The modules of each extra, as they are imported; ``train`` brings those of ``evaluate`` too."""


def need(module: str, what: str, instead: str = "") -> None:
    """Make sure that a module is there, before anything is read or computed.

    Args:
        module: of :data:`EXTRAS`.
        what: what needs it, as the subject of a sentence.
        instead: what can be done without it, a sentence.

    Raises:
        NotInstalled: it is not there.
    """
    if find_spec(module) is None:
        raise NotInstalled(f"{_told(module, what)} {instead}".rstrip())


def not_installed(error: ModuleNotFoundError, what: str) -> NotInstalled | None:
    """The error for people where an import failed for want of an extra; None where it failed for another reason.

    Args:
        error: what the import raised.
        what: what needs the module, as the subject of a sentence.
    """
    module = (error.name or "").partition(".")[0]
    return NotInstalled(_told(module, what)) if _extra_of(module) else None


def _told(module: str, what: str) -> str:
    return f"{what} needs {module}, which is not installed: `pip install 'stillroom[{_extra_of(module)}]'`."


def _extra_of(module: str) -> str | None:
    return next((extra for extra, modules in EXTRAS.items() if module in modules), None)
