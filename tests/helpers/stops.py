"""Commands that a signal stops."""

import subprocess
import time
from collections.abc import Callable


def stopped(words: list[str], when: Callable[[], bool], number: int) -> tuple[int, str]:
    """Start the command, send the signal as soon as the condition holds, and return status and error output."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while not when():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors
