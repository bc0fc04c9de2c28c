"""Plans on disk: what was asked for, so that tables and figures need the results alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from clip_adapter.bench.recipe import recipe_from, recipe_names
from clip_adapter.bench.runs import Plan, Run
from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import write_file

FOLDER = "plans"
FORMAT = 1


def save_plan(plan: Plan, out: Path) -> Path:
    """Writes ``plan`` below ``out``, in the place of an earlier one of its recipe and protocol.

    Raises:
        DataError: it cannot be written.
    """
    recipe = plan.recipe
    protocol = "" if recipe.protocol == "ours" else f"-{recipe.protocol}"
    runs = {run.key: run.to_dict() for run in plan.runs}
    told = {
        "format": FORMAT,
        "recipe": dataclasses.asdict(recipe),
        "runs": runs,
        "cells": [
            [*cell, [[run.key for run in seeds] for seeds in candidates]]
            for cell, candidates in plan.cells.items()
        ],
        "left_out": plan.left_out,
        "missing": plan.missing,
    }
    path = out / FOLDER / recipe.profile / f"{recipe.name}{protocol}.json"
    data = (json.dumps(told, indent=1) + "\n").encode()
    if path.is_file() and path.read_bytes() == data:
        return path
    return write_file(path, data)


def load_plans(out: Path) -> list[Plan]:
    """Every plan below ``out``: by profile, then in the order of the recipes.

    Raises:
        DataError: one is damaged.
    """
    places = {name: place for place, name in enumerate(recipe_names())}
    found = [_load(path) for path in sorted((out / FOLDER).glob("*/*.json"))]

    def order(plan: Plan) -> tuple[str, int, str, str]:
        recipe = plan.recipe
        known = places.get(recipe.name, len(places))
        return recipe.profile, known, recipe.name, recipe.protocol

    return sorted(found, key=order)


def _load(path: Path) -> Plan:
    try:
        told = json.loads(path.read_bytes())
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise ValueError("it is no plan of this version")
        runs = {key: Run.from_dict(run) for key, run in told["runs"].items()}
        # A run of which not all is what it was has another key.
        if any(run.key != key for key, run in runs.items()):
            raise ValueError("its runs are not what they were")
        plan = Plan(recipe_from(told["recipe"]), list(runs.values()))
        labels = {system.label for system in plan.recipe.systems}
        for label, name, backbone, shots, candidates in told["cells"]:
            cell = [[runs[key] for key in seeds] for seeds in candidates]
            first = cell[0][0]
            place = (first.dataset, first.backbone, first.shots)
            if label not in labels or (name, backbone, shots) != place:
                raise ValueError(f"a cell of {label!r} is not what it was")
            plan.cells[label, name, backbone, shots] = cell
        plan.left_out, plan.missing = _lines(told["left_out"]), dict(told["missing"])
        _lines([*plan.missing, *plan.missing.values()])
    except OSError as error:
        raise DataError(f"The plan {path} cannot be read: {error.strerror}.") from error
    except UsageError as error:
        raise _unusable(path, error.found.rstrip(".")) from error
    except KeyError as error:
        raise _unusable(path, f"it has no {error}") from error
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _unusable(path, str(error)) from error
    return plan


def _lines(told: Any) -> list[str]:
    if not isinstance(told, list) or not all(isinstance(line, str) for line in told):
        raise ValueError(f"{told!r} are no lines")
    return told


def _unusable(path: Path, reason: str) -> DataError:
    return DataError(
        f"The plan {path} cannot be used: {reason}.",
        hint="Remove it, and run its recipe again: results that are there are kept.",
    )
