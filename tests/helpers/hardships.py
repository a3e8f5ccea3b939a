"""Conditions under which a forked command must fail in good order. The child process imports them by name."""

import os
import resource
import sys
import tempfile

__all__ = ["enter_a_folder_and_remove_it", "limit_files", "write_ascii"]


def write_ascii() -> None:
    """As with PYTHONIOENCODING=ascii."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="ascii")  # type: ignore[union-attr]


def enter_a_folder_and_remove_it() -> None:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def limit_files() -> None:
    """A limit on the size of files stands for the full disk: it fails in the same calls, and needs no privileges."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
