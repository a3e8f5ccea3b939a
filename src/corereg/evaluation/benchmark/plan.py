"""How a benchmark is run: which methods, with which settings, and what of that a row depends on.

Upstream: `peers.catalogue`, `match`. Downstream: `benchmark`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import OWN, Method, find_method, read_templates
from corereg.evaluation.benchmark.peers.environments import is_installed
from corereg.evaluation.benchmark.working_point import Matched, match_sdlogj
from corereg.evaluation.cases import Cases

__all__ = ["Plan", "choose_methods", "settings_hash", "tuned_methods", "with_settings"]

DEFAULT_METHODS = (OWN, "ants-syn", "elastix", "greedy", "convexadam")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How every method is run."""

    methods: tuple[str, ...] = DEFAULT_METHODS
    models: tuple[str, ...] = ()
    """Of this package, one row each; none means its default."""
    templates: Path | None = None
    """YAML with a user's commands."""
    part: str | None = None
    affine: str = "none"
    """"none": all start from the images as they lie. "auto": each tool takes its own affine step first."""
    budget_seconds: float = 600.0
    """For each pair and method."""
    threads: int = 1
    seed: int = 1
    match_sdlogj: float | None = None
    """Tune this package's R on the validation pairs until their mean SDlogJ is this."""
    keep_fields: bool = False


def choose_methods(plan: Plan) -> tuple[tuple[Method, ...], dict[str, str]]:
    """Those that can be run, with one of ours for each model, and the reasons of those that cannot."""
    templates = () if plan.templates is None else read_templates(plan.templates)
    methods: list[Method] = []
    skipped: dict[str, str] = {}
    for name in plan.methods:
        method = find_method(name, templates)
        if not is_installed(method):
            cure = f"its command {method.command[0]} is not found" if method.command else "not installed"
            skipped[method.name] = cure if method.command else f"{cure}: corereg peers install {method.name}"
        elif method.name == OWN and plan.models:
            methods += [_with_model(method, model) for model in plan.models]
        else:
            methods.append(method)
    if not methods:
        raise InputError(
            f"got methods of which none is there ({'; '.join(f'{n}: {why}' for n, why in skipped.items())}), "
            "expected one; install one of them"
        )
    return tuple(methods), skipped


def _with_model(method: Method, model: str) -> Method:
    path = Path(model)
    if path.suffix and not path.is_file():
        raise InputError(f"got the model {model}, which is no file, expected a name or a .safetensors file; check it")
    value = str(path.resolve()) if path.is_file() else model
    return replace(
        method,
        name=f"{method.name}:{path.stem}",
        title=f"{method.title}, {path.stem}",
        settings=f"model {path.name}, its defaults",
        own=(("model", value),),
    )


def _is_own(method: Method) -> bool:
    return method.name.partition(":")[0] == OWN


def with_settings(method: Method, own: Mapping[str, Any]) -> Method:
    """A method of this package with more settings of `corereg.register`; any other as it is."""
    return replace(method, own=(*method.own, *own.items())) if _is_own(method) else method


def tuned_methods(
    tuning: Cases, cases: Cases, methods: tuple[Method, ...], plan: Plan, say: Callable[[str], None]
) -> tuple[tuple[Method, ...], dict[str, Matched]]:
    """Our methods, each with the R that gives the wanted SDlogJ on the tuning pairs, and how that was found."""
    assert plan.match_sdlogj is not None
    if not any(map(_is_own, methods)):
        raise InputError(
            "got a wanted SDlogJ without corereg to tune, expected it among the methods; add it to --methods"
        )
    where = "these same pairs" if tuning.cases == cases.cases else f"{tuning.part} pairs"
    tuned, matched = [], {}
    for method in methods:
        if _is_own(method):
            found = match_sdlogj(
                tuning, plan.match_sdlogj, settings=dict(method.own), affine=plan.affine, seed=plan.seed, progress=say
            )
            matched[method.name] = found
            words = (
                f"{method.settings}; R = {found.regularisation:.3g}, tuned to SDlogJ {plan.match_sdlogj:g} on {where}"
            )
            own = (*method.own, ("regularisation", found.regularisation))
            method = replace(method, own=own, settings=f"{method.settings}; {words}")
        tuned.append(method)
    return tuple(tuned), matched


def settings_hash(method: Method, plan: Plan) -> str:
    """Of everything that decides a row: a row of other settings is not taken for this one's."""
    own = {name: _content(value) for name, value in method.own}
    decisive = (method.command, method.packages, own, plan.affine, plan.threads, plan.seed, plan.budget_seconds)
    return hashlib.sha256(json.dumps(decisive, default=str).encode()).hexdigest()[:12]


def _content(value: Any) -> Any:
    path = Path(value) if isinstance(value, str) else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else value
