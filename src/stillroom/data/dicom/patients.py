"""Who a DICOM file is of, told apart without being told: PatientID becomes a keyed hash.

Ids are few and easy to guess, so a plain hash of them could be undone by trying them all. The key is a secret file of the
user's: with it one patient has one name in all of that user's runs, without it nobody can try ids.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from stillroom.errors import UsageError

VARIABLE = "STILLROOM_SECRET"
_BYTES = 32
_MOST = 64  # what BLAKE2b takes as a key


def secret_file() -> Path:
    """``$STILLROOM_SECRET``, else ``stillroom/patients.key`` in the platform's folder for this user's data."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "stillroom" / "patients.key"


def secret() -> bytes:
    """The key, made at its first use so that its owner alone can read it.

    Raises:
        UsageError: it can be neither read nor made, or is too short to be one.
    """
    path = secret_file()
    try:
        if not path.exists():
            _make(path)
        found = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"{path}, the secret by which patients of DICOM files are told apart, cannot be read or made ({reason}): name "
            f"a file that can by ${VARIABLE}."
        ) from None
    if len(found) < _BYTES:
        raise UsageError(
            f"{path} is too short to be the secret by which patients of DICOM files are told apart: put back what it was, or "
            "remove it; patients of earlier runs then have other names."
        )
    return found[:_MOST]


def pseudonym(identity: str, key: bytes) -> str:
    """16 hex digits, equal for equal identities under one key; empty for an empty one.

    Case and space do not count: two patients taken for one cost an image, one taken for two spoils a test.
    """
    text = " ".join(identity.split()).casefold()
    return blake2b(text.encode(), key=key, digest_size=8, person=b"patient").hexdigest() if text else ""


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        with suppress(FileExistsError):  # another process was first
            os.link(scratch, path)
    finally:
        scratch.unlink()
