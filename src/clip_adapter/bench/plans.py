"""Plans on disk: what was asked for, so that tables and figures need the results alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from clip_adapter.bench.recipe import Recipe, System, recipe_names
from clip_adapter.bench.runs import Plan, Run
from clip_adapter.errors import DataError
from clip_adapter.files import write_file

FOLDER = "plans"
FORMAT = 1
_TUPLES = ("datasets", "backbones", "shots", "seeds", "shifts")


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
        if told["format"] != FORMAT:
            raise ValueError("it is of another version")
        runs = {key: Run.from_dict(run) for key, run in told["runs"].items()}
        plan = Plan(_recipe(told["recipe"]), list(runs.values()))
        for label, name, backbone, shots, candidates in told["cells"]:
            cell = [[runs[key] for key in seeds] for seeds in candidates]
            plan.cells[label, name, backbone, shots] = cell
        plan.left_out, plan.missing = list(told["left_out"]), dict(told["missing"])
    except OSError as error:
        raise DataError(f"The plan {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The plan {path} cannot be used: {error}.",
            hint="Remove it, and run its recipe again: results that are there are kept.",
        ) from error
    return plan


def _recipe(told: dict[str, Any]) -> Recipe:
    systems = [System(**{**s, "prompts": tuple(s["prompts"])}) for s in told["systems"]]
    lists = {key: tuple(told[key]) for key in _TUPLES}
    return Recipe(**{**told, **lists, "systems": tuple(systems)})
