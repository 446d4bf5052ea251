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

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from stillroom.models import hub
from stillroom.models.origins import (
    open_clip_tower,
    preprocessing,
    timm_models,
    timm_repository,
    transformers_backbone,
)
from stillroom.models.origins.base import Origin
from stillroom.models.origins.built_in import built_in
from stillroom.models.origins.medical import of_catalogue
from stillroom.models.origins.own_module import by_function, handed_over
from stillroom.models.origins.publication import Publication
from stillroom.settings.network_names import (
    HANDED_OVER,
    HUB,
    OPEN_CLIP,
    TRANSFORMERS,
    NetworkName,
    parse,
    require_known,
)


def origin_of(name: str) -> Origin:
    """The origin of a network by its name. Raises UsageError for a name of no form, or for what is not there."""
    found = parse(name)
    if found.is_onnx or found.scheme in (HANDED_OVER, "function"):
        require_known(found, *(("output",) if found.is_onnx else ()))
    if found.is_onnx:
        from stillroom.models.origins.onnx_file import OnnxFile

        return OnnxFile(name, Path(found.base).expanduser(), found.options)
    if found.scheme == HANDED_OVER:
        return handed_over(found.base, found.options)
    return _origin_of(name, found) if found.is_path else _kept(name)


def origin_again(name: str, published: Mapping[str, Any]) -> Origin:
    """The origin of a saved network by what :attr:`Origin.published` said of it, without its repository or folder."""
    found = parse(name)
    # Where its weights were; a saved network brings its own.
    publication = Publication(name, Path(found.base).expanduser())
    config = published.get(transformers_backbone.CONFIG, {})
    if open_clip_tower.CONFIG in published:
        return open_clip_tower.tower(name, published[open_clip_tower.CONFIG], publication, found.options)
    if preprocessing.FILE in published:
        return transformers_backbone.TransformersBackbone(name, config, published[preprocessing.FILE], publication)
    return timm_repository.of_config(name, config, publication, found.arguments)


@lru_cache(maxsize=64)
def _kept(name: str) -> Origin:
    """Names whose meaning does not change while a process runs."""
    return _origin_of(name, parse(name))


def _origin_of(name: str, found: NetworkName) -> Origin:
    if found.scheme == "function":
        return by_function(found.base, found.options)
    if found.scheme == HUB:
        return timm_repository.read(name, Publication(name, hub.split(found.rest)), found.arguments)
    if found.scheme == TRANSFORMERS:
        return transformers_backbone.read(name, Publication(name, hub.split(found.rest)), found.options)
    if found.scheme == OPEN_CLIP:
        return open_clip_tower.read(name, Publication(name, hub.split(found.rest)), found.options)
    if found.is_path:
        return _in_folder(name, Path(found.base).expanduser(), found)
    own = built_in(found.base)
    if own:
        require_known(found)
    ours = own or of_catalogue(name, found.base, found.arguments)
    return ours or timm_models.TimmModel(found.base, found.arguments)


def _in_folder(name: str, folder: Path, found: NetworkName) -> Origin:
    """A folder of timm's, transformers' or open_clip's form, as its files tell."""
    publication = Publication(name, folder)
    if (folder / open_clip_tower.CONFIG).is_file() and not (folder / transformers_backbone.CONFIG).is_file():
        return open_clip_tower.read(name, publication, found.options)
    config = timm_repository.read_config(name, folder)
    if "model_type" in config and "architecture" not in config:
        return transformers_backbone.read(name, publication, found.options)
    return timm_repository.of_config(name, config, publication, found.arguments)
