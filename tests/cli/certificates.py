"""Certificates made by the test. The only module of these tests that imports from ``test_tls``."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pytest

import test_tls
from test_tls import Authority, Party

__all__ = ["Authority", "Party", "shift_clock"]


def shift_clock(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """Let authorities issue certificates as if it were later, or earlier."""

    class Shifted:
        @staticmethod
        def now(zone: dt.tzinfo) -> dt.datetime:
            return dt.datetime.now(zone) + dt.timedelta(hours=hours)

    monkeypatch.setattr(test_tls, "dt", SimpleNamespace(datetime=Shifted, timedelta=dt.timedelta, UTC=dt.UTC))
