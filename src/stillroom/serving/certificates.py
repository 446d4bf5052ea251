"""Whether a certificate and its key can be used, asked before anything listens."""

from __future__ import annotations

import ssl
from pathlib import Path

from stillroom.errors import UsageError


def require_certificate(cert: Path, key: Path) -> None:
    """Raises UsageError, naming the file, where one is missing, is no PEM, or they do not belong together."""
    for path in (cert, key):
        if not path.is_file():
            raise UsageError(f"There is no file at {path}.")
        try:
            path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from None
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
