"""Whether a certificate and its key can be used, asked before anything listens."""

from __future__ import annotations

import ssl
from pathlib import Path

from stillroom.errors import UsageError


def require_certificate(cert: Path, key: Path) -> None:
    """Raises UsageError, naming the file, where one is missing, is no PEM, or they do not belong together."""
    for flag, path in (("--tls-cert", cert), ("--tls-key", key)):
        if path.is_dir():
            raise UsageError(f"{flag} {path} is a folder: name the file in it.")
        if not path.is_file():
            raise UsageError(f"{flag}: There is no file at {path}.")
        try:
            path.read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(
                f"{flag} {path} cannot be read: {reason}. Let the user who serves read it, or name another."
            ) from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert)
    except ssl.SSLError:
        raise UsageError(f"--tls-cert {cert} is no certificate in PEM (-----BEGIN CERTIFICATE-----).") from None
    asked = list[bool]()

    def passphrase() -> str:
        asked.append(True)  # OpenSSL would ask at the terminal, which a server has none of
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, passphrase)
    except ssl.SSLError as error:
        if asked:
            raise UsageError(f"--tls-key {key} is encrypted: name one without a passphrase.") from None
        if str(error.reason).endswith("MISMATCH"):
            raise UsageError(f"--tls-key {key} is not the key of the certificate {cert}.") from None
        raise UsageError(f"--tls-key {key} is no private key in PEM (-----BEGIN PRIVATE KEY-----).") from None
