"""Files that are published together: in a repository of the hub, or in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stillroom.errors import StillroomError, UsageError
from stillroom.models import hub
from stillroom.models.origins.base import Provenance
from stillroom.models.weights import read_weights

_INDEX = ".index.json"


@dataclass(frozen=True)
class Publication:
    """Where the files of a network are.

    Args:
        name: the network's, in the user's words.
        place: the repository and its revision, or the folder.
    """

    name: str
    place: tuple[str, str | None] | Path

    @property
    def repository(self) -> str | None:
        return None if isinstance(self.place, Path) else self.place[0]

    def settings(self, file: str) -> dict[str, Any]:
        """What one of its JSON files says.

        Raises:
            UsageError: it is not there, or holds something else.
        """
        if not isinstance(self.place, Path):
            return hub.fetch_config(self.name, self.place[0], file=file, revision=self.place[1])
        return _object(self.place / file)

    def weights(self, files: Sequence[str]) -> Path:
        """The first of several files that is there; where that is an index, with all that it lists.

        Raises:
            UsageError: there is none of them.
        """
        if isinstance(self.place, Path):
            found = next((self.place / file for file in files if (self.place / file).is_file()), None)
            if found is None:
                raise UsageError(f"{self.place} has no {' and no '.join(files)}.")
            return found
        repository, revision = self.place
        found = hub.fetch_any(self.name, repository, files, revision=revision)
        if _is_index(found):
            hub.fetch_shards(self.name, repository, index=found.name, revision=revision)
        return found

    def provenance(self, file: Path | None) -> Provenance:
        """Whose weights these are, ``file`` being the one that the user gave instead."""
        if file or isinstance(self.place, Path):
            return Provenance(str(file or self.place))
        repository, revision = self.place
        return Provenance(repository, hub.commit_of(repository, revision), self._licence())

    def _licence(self) -> str | None:
        """The licence that the head of the repository's README.md states."""
        repository, revision = self.place  # type: ignore[misc]
        try:
            text = hub.fetch(self.name, repository, file="README.md", revision=revision).read_text(encoding="utf-8")
        except (StillroomError, OSError, UnicodeDecodeError):  # a repository need not have one
            return None
        head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
        stated: dict[str, str] = (
            dict(re.findall(r"^(license(?:_name)?):[ \t]*(\S.*?)\s*$", head[1], re.MULTILINE)) if head else {}
        )
        told = stated.get("license", "")
        told = stated.get("license_name", told) if told in ("", "other") else told
        return told.strip("\"'") or None


def files_of(file: Path) -> list[Path]:
    """The file of weights itself, or those that an index names, in the order of their names."""
    return [file.parent / shard for shard in sorted(set(_places(file).values()))] if _is_index(file) else [file]


def read_published(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights as it has them, or of all files that an index names.

    Raises:
        UsageError: a file is not there or damaged.
    """
    if not _is_index(file):
        return read_weights(file)[0]
    state: dict[str, Tensor] = {}
    for shard in files_of(file):
        if not shard.is_file():
            raise UsageError(f"{shard} is not there, and {file.name} says that it holds weights.")
        state |= read_weights(shard)[0]
    places = _places(file)
    if lacking := next((key for key in places if key not in state), None):
        raise UsageError(f"{file.parent / places[lacking]} lacks {lacking}, which {file.name} says that it holds.")
    return state


def _is_index(file: Path) -> bool:
    return file.name.endswith(_INDEX)


def _places(file: Path) -> dict[str, str]:
    """Of an index, which tensor is in which file."""
    places = _object(file).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise UsageError(f"{file} has no table weight_map of tensors and files.")
    return places


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UsageError(f"{file} is not valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise UsageError(f"{file} is not a JSON object.")
    return content
