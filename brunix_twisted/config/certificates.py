"""Checks of certificate and key files, before anything starts."""

from __future__ import annotations

import ssl

from brunix_twisted.config.rules import SettingError


def authorities(path: str) -> str:
    """
    Check that a file contains certificates in PEM form; return its path.

    :raises ValueError: the file cannot be read, or contains no certificate.
    """
    try:
        trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusted.load_verify_locations(cafile=path)
    except OSError as fault:
        raise ValueError(path) from fault
    return path


def readable(path: str) -> str:
    """
    Check that a file can be opened for reading; return its path.

    :raises ValueError: it cannot.
    """
    try:
        # Open it without reading: a device or pipe may have no end. Its content is checked later.
        with open(path, "rb"):  # noqa: PTH123 - checks only whether it opens
            return path
    except (OSError, ValueError) as fault:
        raise ValueError(path) from fault


def belong_together(certificate: str, key: str) -> bool:
    """Return whether two readable files are a certificate and its private key without a password."""
    pair = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        pair.load_cert_chain(certificate, key, password="")
    except OSError:
        return False
    return True


def check_together(ca: str | None, certificate: str | None, key: str | None, name: str | None) -> None:
    """
    Check the TLS settings together, which the rule of one setting cannot.

    :raises SettingError: one is set without another, or the key is not that of the certificate.
    """
    files = {"BRUNIX_GRPC_TLS_CA": ca, "BRUNIX_GRPC_TLS_CERT": certificate, "BRUNIX_GRPC_TLS_KEY": key}
    for variable, value, others in (
        ("BRUNIX_GRPC_TLS_CERT", certificate, ("BRUNIX_GRPC_TLS_CA", "BRUNIX_GRPC_TLS_KEY")),
        ("BRUNIX_GRPC_TLS_KEY", key, ("BRUNIX_GRPC_TLS_CA", "BRUNIX_GRPC_TLS_CERT")),
        ("BRUNIX_GRPC_TLS_NAME", name, ("BRUNIX_GRPC_TLS_CA",)),
    ):
        if value is not None and any(files[other] is None for other in others):
            raise SettingError(variable, value, f"only together with {' and '.join(others)}")
    if certificate is not None and key is not None and not belong_together(certificate, key):
        allowed = "the private key of BRUNIX_GRPC_TLS_CERT, both in PEM form, the key without a password"
        raise SettingError("BRUNIX_GRPC_TLS_KEY", key, allowed)
