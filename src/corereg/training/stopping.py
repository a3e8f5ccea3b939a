"""Signals that ask a run to stop. The run sees the request after its current step, and saves first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "stop_signals"]

STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
"""Signals sent by a user, by a cluster's scheduler or to a pre-empted node."""


class StopRequest(threading.Event):
    """An event set by the first signal that requests a stop."""

    signal_number: int = signal.SIGTERM


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn stop signals into a request while the block runs; outside the main thread no signal can be caught."""
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        request.set()

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
