"""Processes that a test started, directly or not."""

import psutil


def runs(pid: int) -> bool:
    """Whether a process runs, and is not merely waiting to be collected."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
