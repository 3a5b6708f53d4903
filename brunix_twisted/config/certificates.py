"""Checks of certificate and key files, before anything starts."""

from __future__ import annotations

import ssl


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
