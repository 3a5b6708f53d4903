"""Whether the files of certificates that an operator names hold what they should, before anything starts."""

from __future__ import annotations

import ssl


def authorities(path: str) -> str:
    """
    Take the path of certificates to trust, in PEM form.

    :raises ValueError: it cannot be read, or holds no certificate.
    """
    try:
        trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusted.load_verify_locations(cafile=path)
    except OSError as fault:
        raise ValueError(path) from fault
    return path


def readable(path: str) -> str:
    """
    Take the path of a file that can be read.

    :raises ValueError: it cannot.
    """
    try:
        # A device or a pipe that never ends is not opened to be read here; whatever can be opened is looked at later.
        with open(path, "rb"):  # noqa: PTH123 - no more than whether it opens
            return path
    except (OSError, ValueError) as fault:
        raise ValueError(path) from fault


def belong_together(certificate: str, key: str) -> bool:
    """Whether two readable files are a certificate and its private key, which nobody has to be asked a password for."""
    pair = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        pair.load_cert_chain(certificate, key, password="")
    except OSError:
        return False
    return True
