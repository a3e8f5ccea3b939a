"""Counting the images that are opened."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from corereg.io.images.image import read_image
from corereg.training.scans import inspection as inspection_module
from corereg.training.scans import volumes as volumes_module


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often each image is opened."""
    counts: Counter[str] = Counter()

    def counting(path: Any) -> Any:
        counts[Path(path).name] += 1
        return read_image(path)

    for module in (inspection_module, volumes_module):
        monkeypatch.setattr(module, "read_image", counting)
    return counts
