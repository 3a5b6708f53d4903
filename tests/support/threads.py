"""Helper threads of a test: joined before it ends, and what goes wrong in one of them fails that test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from fake_reactor import LIMIT_S

WHOLE_SESSION: Final = "whole session"
"""The name of a thread that no test has to end."""


class Threads:
    """
    Threads that end with the block they are used in.

    Whatever lets them end (closing a socket, setting an event) has to happen before the block does.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, function: Callable[..., object], *arguments: Any) -> threading.Thread:  # noqa: ANN401 - any function
        """Run a function in a thread. Any thread may call this."""

        def run() -> None:
            try:
                function(*arguments)
            except BaseException as error:  # noqa: BLE001 - raised by join()
                self._errors.append(error)

        # A daemon, so that a failing run can end although a thread hangs.
        thread = threading.Thread(target=run, name=getattr(function, "__qualname__", None), daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        """Wait for all of them, also for those that they start themselves, and raise the first error of any."""
        # While the list grows, this goes on with what was added.
        for thread in self._threads:
            thread.join(LIMIT_S)
            if thread.is_alive():
                raise AssertionError(f"The thread {thread.name} does not end")
        self._threads.clear()
        errors, self._errors = self._errors, []
        if errors:
            raise errors[0]

    def __enter__(self) -> Threads:  # noqa: PYI034 - there is no other
        """Start none yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Join them. An error of the block itself is more important than one of theirs."""
        try:
            self.join()
        except BaseException as other:
            if error is None:
                raise
            error.add_note(f"A helper thread also failed: {other!r}")
