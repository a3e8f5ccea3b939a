"""Choosing between compiled kernels and plain torch."""

import subprocess
import sys

import pytest
import torch

from corereg.errors import InputError
from corereg.geometry.displacement import (
    compose,
)
from corereg.geometry.kernels import dispatch
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE, use_kernels
from corereg.geometry.strided import box_mean, upsample
from helpers.kernels import each_shape, smooth_noise

pytest.importorskip("numba")


def test_choice_of_implementation(monkeypatch):
    plain = torch.zeros(1, 1, 3, 4, 5)
    learned = plain.clone().requires_grad_(True)
    for choice in ("", "numba"):
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        assert use_kernels(plain, None)
        assert not use_kernels(plain, plain.double())
        assert not use_kernels(plain, learned)
        with torch.no_grad():
            assert use_kernels(plain, learned)
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    assert not use_kernels(plain)


def test_unknown_implementation_is_refused(monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, "cuda")
    with pytest.raises(InputError, match="COREREG_KERNELS=cuda"):
        box_mean(torch.zeros(1, 1, 3, 4, 5))


def test_without_numba_everything_runs_on_torch(monkeypatch):
    monkeypatch.setattr(dispatch, "_numba_imports", lambda: False)
    monkeypatch.delenv(KERNELS_VARIABLE, raising=False)
    assert not use_kernels(torch.zeros(1))
    monkeypatch.setenv(KERNELS_VARIABLE, "numba")
    with pytest.raises(InputError, match="install numba"):
        use_kernels(torch.zeros(1))


@each_shape
def test_gradients_flow_through_operations_that_have_kernels(shape, generator):
    disp_vox = smooth_noise(generator, 1, 3, *shape).requires_grad_(True)
    compose(box_mean(disp_vox), upsample(disp_vox, 1, shape)).sum().backward()
    assert float(disp_vox.grad.abs().sum()) > 0


LIFE_IN_A_CHILD = """
import os, sys, torch
from corereg.geometry.strided import box_mean
import corereg.method.pipeline
assert "numba" not in sys.modules
box_mean(torch.ones(1, 1, 3, 4, 5))
child = os.fork()
if child == 0:
    os._exit(int(float(box_mean(torch.ones(1, 1, 3, 4, 5)).sum()) != 60))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_numba_is_imported_late_and_kernels_survive_a_fork():
    subprocess.run([sys.executable, "-W", "ignore", "-c", LIFE_IN_A_CHILD], check=True, timeout=120)
