"""The plan of a benchmark: which methods run, with which settings, and which of these decide a row.

Upstream: `peers.catalogue`, `working_point`. Downstream: `run`.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import OWN, Method, find_method, read_templates
from corereg.evaluation.benchmark.peers.environments import is_installed
from corereg.evaluation.benchmark.working_point import WorkingPoint, find_working_point
from corereg.evaluation.cases import Cases
from corereg.io.json_files import load_json, save_json
from corereg.provenance import hash_files

__all__ = ["Plan", "choose_methods", "settings_hash", "tuned_methods", "with_own_settings"]

AFFINE = ("none", "auto")
DEFAULT_METHODS = (OWN, "ants-syn", "elastix", "greedy", "convexadam")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Settings that hold for every method of a benchmark."""

    methods: tuple[str, ...] = DEFAULT_METHODS
    models: tuple[str, ...] = ()
    """Models of this package, each a method of its own; empty for the default model."""
    trained: tuple[tuple[str, str], ...] = ()
    """Names of other methods that need training, each with the file of its model."""
    templates: Path | None = None
    """YAML file with a user's own commands as methods."""
    split: str | None = None
    """Pairs to run on, "validation" or "test"; see `read_cases`."""
    affine: str = "none"
    """"none": all methods start from the images as they lie. "auto": each tool runs its own affine step first."""
    budget_seconds: float = 600.0
    """Time limit for each pair and method, in seconds."""
    threads: int = 1
    """Threads that each method may use."""
    seed: int = 1
    """Seed of every method that takes one."""
    match_sdlogj: float | None = None
    """Tune R of this package on the validation pairs until their mean SDlogJ has this value; None keeps R."""
    keep_fields: bool = False
    """Whether to keep every displacement field."""
    keep_fields_of: tuple[str, ...] = ()
    """Names of pairs (see `Case.name`) whose displacement fields are kept in any case."""
    skip_missing: bool = False
    """Skip requested methods that cannot run, instead of refusing to start. The default methods are always skipped."""

    def __post_init__(self) -> None:
        if self.affine not in AFFINE:
            raise InputError(f"got affine {self.affine!r}, expected {' or '.join(AFFINE)}; choose one")
        if not 0 < self.budget_seconds < math.inf:
            raise InputError(f"got a time budget of {self.budget_seconds:g} s, expected a positive number of seconds")
        if self.threads < 1:
            raise InputError(f"got {self.threads} threads, expected at least 1; leave the option out to use all cores")
        if self.match_sdlogj is not None and not 0 < self.match_sdlogj < 1:
            raise InputError(
                f"got an SDlogJ to match of {self.match_sdlogj:g}, expected a number between 0 and 1, such as 0.05"
            )

    def as_dict(self) -> dict[str, Any]:
        """The fields under their names in provenance.json, where the split is called "part"; no `templates`."""
        named = {"part" if name == "split" else name: value for name, value in asdict(self).items()}
        named.pop("templates")
        return named


def choose_methods(plan: Plan) -> tuple[tuple[Method, ...], dict[str, str]]:
    """The methods that can run, this package's once per model, and the names of the others with the reason why not.

    Raises:
        InputError: a method is unknown, or no requested method can run, or some cannot and are not to be skipped.
    """
    templates = () if plan.templates is None else read_templates(plan.templates)
    methods: list[Method] = []
    trained = dict(plan.trained)
    skipped: dict[str, str] = {}
    for name in plan.methods:
        method = find_method(name, templates)
        if method.needs_training and name not in trained:
            skipped[method.name] = "it needs training, which only `corereg reproduce` does"
        elif not is_installed(method):
            skipped[method.name] = (
                f"its command {method.command[0]} is not found"
                if method.command
                else f"not installed: corereg peers install {method.name}"
            )
        elif method.name == OWN and plan.models:
            methods += [_with_model(method, model) for model in plan.models]
        elif method.needs_training:
            methods.append(replace(method, own=(("model", trained[name]),)))
        else:
            methods.append(method)
    reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
    if not methods:
        raise InputError(f"none of the requested methods can run ({reasons}); install at least one of them")
    if skipped and plan.methods != DEFAULT_METHODS and not plan.skip_missing:
        raise InputError(
            f"{len(skipped)} of the requested methods cannot run ({reasons}); install them, leave them out of "
            "--methods, or use --skip-missing to run the others"
        )
    return tuple(methods), skipped


def _with_model(method: Method, model: str) -> Method:
    path = Path(model)
    if path.suffix and not path.is_file():
        raise InputError(f"the model file {model} does not exist; give a .safetensors file or the name of a model")
    value = str(path.resolve()) if path.is_file() else model
    return replace(
        method,
        name=f"{method.name}:{path.stem}",
        title=f"{method.title}, {path.stem}",
        settings=f"model {path.name}, its defaults",
        own=(("model", value),),
    )


def _is_own(method: Method) -> bool:
    return method.name.partition(":")[0] == OWN and not method.command


def with_own_settings(method: Method, own: Mapping[str, Any]) -> Method:
    """A method of this package with further settings of `corereg.register`; other methods unchanged."""
    return replace(method, own=(*method.own, *own.items())) if _is_own(method) else method


def tuned_methods(
    tuning: Cases,
    cases: Cases,
    methods: tuple[Method, ...],
    plan: Plan,
    progress: Callable[[str], None],
    *,
    remembered: Path | None = None,
) -> tuple[tuple[Method, ...], dict[str, WorkingPoint]]:
    """All methods, this package's with the R that reaches `plan.match_sdlogj` on the tuning pairs, and those R by name.

    Args:
        remembered: JSON file of working points found earlier, which are not searched again.

    Raises:
        InputError: no method of this package is among them.
    """
    assert plan.match_sdlogj is not None
    if not any(map(_is_own, methods)):
        raise InputError("a target SDlogJ tunes corereg, which is not among the methods; add it to --methods")
    where = "these same pairs" if tuning.cases == cases.cases else f"{tuning.split} pairs"
    tuned, matched = [], {}
    known = {} if remembered is None else load_json(remembered)
    for method in methods:
        if _is_own(method):
            key = _search_hash(method, plan, tuning)
            if key not in known:
                found = find_working_point(
                    tuning,
                    plan.match_sdlogj,
                    settings=dict(method.own),
                    affine=plan.affine,
                    seed=plan.seed,
                    progress=progress,
                )
                known[key] = asdict(found)
                if remembered is not None:
                    save_json(remembered, known)
            found = WorkingPoint(**known[key] | {"tried": tuple(map(tuple, known[key]["tried"]))})
            matched[method.name] = found
            tuned_to = f"R = {found.regularisation:.3g}, tuned to SDlogJ {plan.match_sdlogj:g} on {where}"
            own = (*method.own, ("regularisation", found.regularisation))
            method = replace(method, own=own, settings=f"{method.settings}; {tuned_to}")
        tuned.append(method)
    return tuple(tuned), matched


def _search_hash(method: Method, plan: Plan, tuning: Cases) -> str:
    """Hash of everything that decides a working point."""
    pairs = [(str(case.fixed.image), str(case.moving.image)) for case in tuning.cases]
    decisive = (settings_hash(method, plan), plan.match_sdlogj, pairs)
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def settings_hash(method: Method, plan: Plan) -> str:
    """Hash of everything that decides a row, so that rows of other settings are never reused."""
    own = {name: _content(value) for name, value in method.own}
    decisive = (method.command, method.packages, own, plan.affine, plan.threads, plan.seed, plan.budget_seconds)
    return hashlib.sha256(json.dumps(decisive, default=str).encode()).hexdigest()[:12]


def _content(value: Any) -> Any:
    """The hash of a file that a setting names; any other value as it is."""
    path = Path(value) if isinstance(value, str) else None
    return hash_files([path]) if path is not None and path.is_file() else value
