"""The exponential function for the compiled CPU kernels, in operations that vectorise without a vendor library."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np

from corereg.geometry.kernels.threads import kernel

__all__ = ["exp_negative"]

F = np.float32
LOG2_E = F(1.4426950408889634)
LN_2_HIGH, LN_2_LOW = F(0.693359375), F(-2.12194440e-4)
"""ln 2 in two parts: the first has few bits, so its product with a small integer is exact."""
LOWEST = F(-87.0)
"""Below this, exp leaves the range of normal numbers."""
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)


@kernel
def exp_negative(x):
    """exp(x) for x <= 0, to a relative error of 2e-7; x below -87 gives exp(-87).

    x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by its Taylor polynomial (next term below 1.3e-7), 2^n by its bits.
    """
    x = max(x, LOWEST)
    n = np.int32(x * LOG2_E - F(0.5))
    r = (x - F(n) * LN_2_HIGH) - F(n) * LN_2_LOW
    p = F(1 / 720)
    p = p * r + F(1 / 120)
    p = p * r + F(1 / 24)
    p = p * r + F(1 / 6)
    p = p * r + F(0.5)
    p = p * r + F(1)
    p = p * r + F(1)
    return p * np.int32((n + EXPONENT_BIAS) << MANTISSA_BITS).view(np.float32)
