"""Settings of a registration: their names, the paper's preset, and every place where they appear."""

import inspect
import json
from dataclasses import asdict, replace
from typing import Any

import pytest

import corereg
from corereg.method.config import (
    PAPER_PASSES,
    PipelineConfig,
    RefineConfig,
    RegisterConfig,
    paper_refine,
    register_options,
    with_register_options,
)
from helpers.refusals import refusal


def test_each_option_changes_its_own_setting() -> None:
    given = {
        "model": "random",
        "modality": "mr",
        "affine": "none",
        "spacing": 1.5,
        "device": "cpu",
        "precision": "fp32",
        "memory": 2.0,
        "passes": (8, 4),
        "refine_steps": 7,
        "regularisation": 4.0,
        "volume_preservation": 0.5,
        "parametrisation": "diffeomorphic",
        "symmetric": False,
        "fine": False,
        "seed": 9,
    }
    assert {option.name for option in register_options()} >= {*given, "target_sdlogj", "refine"}
    target = with_register_options(RegisterConfig(), {"target_sdlogj": 0.1, "regularisation": None})
    assert target == RegisterConfig(stages=PipelineConfig(target_sdlogj=0.1))
    assert with_register_options(RegisterConfig(), given) == RegisterConfig(
        model="random",
        modality="mr",
        affine="none",
        spacing_mm=1.5,
        device="cpu",
        precision="fp32",
        memory_gb=2.0,
        stages=PipelineConfig(
            passes=(8, 4),
            symmetric=False,
            fine=False,
            seed=9,
            refine=RefineConfig(
                steps=7, regularisation=4.0, volume_preservation=0.5, parametrisation="diffeomorphic"
            ),
        ),
    )  # fmt: skip


def test_refinement_of_the_paper_is_one_setting_under_the_others() -> None:
    start = RegisterConfig(affine="none", stages=PipelineConfig(refine=RefineConfig(steps=3)))
    found = with_register_options(start, {"refine": "paper", "regularisation": 4.0})
    refine = replace(paper_refine(), regularisation=4.0)
    stages = PipelineConfig(passes=PAPER_PASSES, refine=refine, symmetric=False, fine=False)
    assert found == RegisterConfig(affine="none", stages=stages)
    assert (refine.steps, refine.learning_rate, refine.volume_preservation) == (50, 1.0, 0.0)
    assert with_register_options(RegisterConfig(), {"refine": "default"}) == RegisterConfig()


def test_a_weight_and_a_target_that_searches_it_exclude_each_other() -> None:
    message = refusal(with_register_options, RegisterConfig(), {"regularisation": 1.0, "target_sdlogj": 0.1})
    assert "got --regularisation and --target-sdlogj, expected one of them" in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("precision", "fp8", "auto, fp32, bf16 or fp16"),
        ("memory", 0.0, "above 0"),
        ("memory", -1.0, "above 0"),
        ("refine", "papr", "did you mean paper?"),
        ("refine_steps", "ten", "refine_steps = 'ten'"),
        ("seed", 2**32 - 1, "at most 4294967294"),
        ("regularisaton", 3, "did you mean regularisation?"),
        ("spacing_mm", 2.0, "did you mean spacing?"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(name: str, value: object, words: str) -> None:
    message = refusal(with_register_options, RegisterConfig(), {name: value})
    assert message.startswith("got ")
    assert words in message


def test_the_configuration_in_result_json_keeps_its_keys() -> None:
    """As version 0.1 wrote it: scripts read these."""
    expected = {
        "model": "mind",
        "modality": "auto",
        "affine": "auto",
        "spacing_mm": None,
        "device": "auto",
        "precision": "auto",
        "memory_gb": None,
        "stages": {
            "passes": None,
            "coupled_convex": {
                "radius": 2,
                "feature_scale": 5.0,
                "sharpness": 20.0,
                "couplings": [0.003, 0.03, 0.3],
                "inverse_consistency_steps": 15,
            },
            "refine": {
                "steps": 18,
                "learning_rate": 0.5,
                "regularisation": 3.5,
                "volume_preservation": 1.0,
                "smoothing": 8,
                "channels": 32,
                "parametrisation": "displacement",
            },
            "target_sdlogj": None,
            "symmetric": True,
            "fine": None,
            "seed": 0,
        },
    }
    written = json.loads(json.dumps(asdict(RegisterConfig())))
    assert_keeps(written, expected)


def assert_keeps(written: dict[str, Any], expected: dict[str, Any]) -> None:
    """Keys may be added; those that were there keep their order and values."""
    assert [key for key in written if key in expected] == list(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_keeps(written[key], value)
        else:
            assert written[key] == value


def test_signature_and_docstring_of_register_show_every_option_with_its_default() -> None:
    parameters = inspect.signature(corereg.register).parameters
    described = inspect.getdoc(corereg.register)
    assert described is not None
    assert parameters["regularisation"].default == 3.5
    for option in register_options():
        assert parameters[option.name].default == option.default
        assert f"    {option.name}: {option.meaning}" in described
    assert "settings" not in parameters
