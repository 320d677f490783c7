"""Who may connect: files of certificates and of a token."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partway.errors import InputError, shown
from partway.files import read_limited, why

MAX_BYTES = 2**20
"""A larger file is no certificate."""
LEAST_TOKEN = 16
"""Characters of a token below which it could be guessed."""


@dataclass(frozen=True)
class Files:
    """What a party was given; None for what it was not.

    cert, key  its own certificate chain and private key, PEM        ca  of those whom it trusts, PEM
    token      a file with a secret that both sides have
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    token: Path | None = None

    def secret(self) -> str:
        """The token, "" without one. Raises InputError where it is too short."""
        if self.token is None:
            return ""
        secret = _read("--token-file", self.token).decode("utf-8", "replace").strip()
        if len(secret) < LEAST_TOKEN or not secret.isascii() or not secret.isprintable():
            raise InputError(
                f"--token-file {shown(str(self.token))}: must hold {LEAST_TOKEN} printable characters or more"
            )
        return secret

    def for_server(self) -> Any:
        """The server's credentials; None where it has no certificate. Clients need one where `ca` is given."""
        import grpc

        pair = self._pair()
        if pair is None:
            if self.ca is not None:
                raise InputError("--tls-client-ca needs --tls-cert and --tls-key too")
            return None
        ca = self._trusted("--tls-client-ca")
        return grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)

    def for_device(self) -> Any:
        """A device's credentials; None where it was given nothing, and the connection is not encrypted."""
        import grpc

        pair = self._pair()
        if self.ca is None and pair is None:
            return None
        ca = self._trusted("--tls-ca")
        key, chain = pair or (None, None)
        return grpc.ssl_channel_credentials(ca, key, chain)

    def _pair(self) -> tuple[bytes, bytes] | None:
        if (self.cert is None) != (self.key is None):
            raise InputError("--tls-cert and --tls-key belong together: give both")
        if self.cert is None or self.key is None:
            return None
        pair = _read("--tls-key", self.key), _read("--tls-cert", self.cert)
        try:  # gRPC would not say what is wrong
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.cert, self.key, lambda: "")
        except (OSError, ValueError):
            given = f"--tls-cert {shown(str(self.cert))} and --tls-key {shown(str(self.key))}"
            raise InputError(f"{given}: must be a certificate and its private key, without a password, PEM") from None
        return pair

    def _trusted(self, flag: str) -> bytes | None:
        """The certificates of those whom this party trusts."""
        if self.ca is None:
            return None
        certificates = _read(flag, self.ca)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
                cadata=certificates.decode("utf-8", "replace")
            )
        except (OSError, ValueError):
            raise InputError(f"{flag} {shown(str(self.ca))}: must hold a certificate, PEM") from None
        return certificates


def _read(flag: str, path: Path) -> bytes:
    try:
        return read_limited(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{flag} {shown(str(path))}: cannot be read ({why(error)})") from None
