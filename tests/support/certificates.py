"""Certificates that a test makes."""

from __future__ import annotations

import datetime as dt
import sys
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@attrs.frozen
class Party:
    """Somebody with a certificate; the files it is in, in PEM form."""

    certificate: Path
    key: Path

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """The key and the certificate, as gRPC wants them."""
        return self.key.read_bytes(), self.certificate.read_bytes()


@attrs.frozen
class Authority:
    """Signs certificates, and writes them into a folder."""

    folder: Path
    name: str
    _key: ec.EllipticCurvePrivateKey = attrs.Factory(lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def party(self) -> Party:
        """The authority itself."""
        return self.sign(self.name, authority=True)

    def sign(self, name: str, *, authority: bool = False) -> Party:
        """Make a certificate for a host name, or for the loopback interface's address."""
        key = self._key if authority else ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        is_address = name.replace(".", "").isdigit()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address(name)) if is_address else x509.DNSName(name)]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        party = Party(self.folder / f"{self.name}-{name}.crt", self.folder / f"{self.name}-{name}.key")
        party.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        party.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return party


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def shift_clock(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """Let authorities issue certificates as if it were later, or earlier."""
    real, delta = dt.datetime, dt.timedelta(hours=hours)

    class Shifted:
        @staticmethod
        def now(zone: dt.tzinfo) -> dt.datetime:
            return real.now(zone) + delta

    monkeypatch.setattr(
        sys.modules[__name__], "dt", SimpleNamespace(datetime=Shifted, timedelta=dt.timedelta, UTC=dt.UTC)
    )
