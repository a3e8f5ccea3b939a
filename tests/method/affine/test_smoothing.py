"""The Gaussian is SciPy's, with kernels and without."""

import numpy as np
import pytest
from scipy import ndimage

from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.method.affine.smoothing import TRUNCATE, gaussian


@pytest.mark.parametrize("library", ["numba", "torch"])
@pytest.mark.parametrize("deviations", [(2.6, 1.2, 0.4), (8.0, 9.0, 20.0), (0.1, 0.0, 1.0)])
def test_gaussian_is_that_of_scipy(
    deviations: tuple[float, float, float], library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KERNELS_VARIABLE, library)
    volume = np.random.default_rng(0).standard_normal((30, 21, 17)).astype(np.float32)
    expected = ndimage.gaussian_filter(volume, deviations, mode="nearest", truncate=TRUNCATE)
    np.testing.assert_allclose(gaussian(volume, deviations), expected, atol=1e-6)
