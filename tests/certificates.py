"""Certificates for servers on loopback."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """A certificate authority of one's own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.file = str(directory / "ca.pem")
        self._authority.cert_pem.write_to_path(self.file)

    def certify(self, host: str, valid: timedelta = timedelta(days=1)) -> tuple[str, str]:
        """The files of a certificate and its key; a negative time is since when it is not valid any more."""
        now = datetime.now(UTC)
        issued = self._authority.issue_cert(host, not_before=now - timedelta(days=9), not_after=now + valid)
        certificate, key = (self._directory / f"{host}.{kind}.pem" for kind in ("certificate", "key"))
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        return str(certificate), str(key)

    def context(self) -> ssl.SSLContext:
        """What a server of 127.0.0.1 needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certify("127.0.0.1"))
        context.load_verify_locations(self.file)
        return context
