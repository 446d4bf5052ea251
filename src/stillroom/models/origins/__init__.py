"""Where networks come from, by the form of their names.

=================================  ==========================================================================
``resnet50``, ``ofa595``           timm's and ours
``uni``                            the catalogue of medical teachers
``hf-hub:OWNER/NAME[@revision]``   a repository in timm's form (config.json names an architecture of timm's)
``./folder``                       a folder of the same form
``hf:OWNER/NAME[@revision]``       a vision backbone of transformers
``open_clip:OWNER/NAME``           the image tower of an open_clip model
``package.module:function``        a function that makes a module
``module:...``                     a module that was handed over in Python
``model.onnx``                     an ONNX file
=================================  ==========================================================================
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from stillroom.models.origins import timm_models, timm_repository
from stillroom.models.origins.base import Origin
from stillroom.models.origins.built_in import built_in
from stillroom.models.origins.medical import of_catalogue
from stillroom.models.origins.own_module import by_function, handed_over
from stillroom.settings.network_names import HANDED_OVER, HUB, NetworkName, parse


def origin_of(name: str) -> Origin:
    """The origin of a network by its name. Raises UsageError for a name of no form, or for what is not there."""
    found = parse(name)
    if found.is_onnx:
        from stillroom.models.origins.onnx_file import OnnxFile

        return OnnxFile(name, Path(found.base).expanduser(), found.options)
    if found.scheme == HANDED_OVER:
        return handed_over(found.base, found.options)
    return _origin_of(name, found) if found.is_path else _kept(name)


@lru_cache(maxsize=64)
def _kept(name: str) -> Origin:
    """Names whose meaning does not change while a process runs."""
    return _origin_of(name, parse(name))


def _origin_of(name: str, found: NetworkName) -> Origin:
    if found.scheme == "function":
        return by_function(found.base, found.options)
    if found.scheme == HUB:
        return timm_repository.at_hub(name, found.rest, found.arguments)
    if found.is_path:
        folder = Path(found.base).expanduser()
        return timm_repository.in_folder(name, folder, timm_repository.read_config(name, folder), found.arguments)
    ours = built_in(found.base) or of_catalogue(name, found.base, found.arguments)
    return ours or timm_models.TimmModel(found.base, found.arguments)
