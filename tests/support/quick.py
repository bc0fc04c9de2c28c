"""Options for short trainings, where it is no matter what is learnt."""

import dataclasses

from clip_adapter.methods import get_method

SHORT = {"epochs": 2, "steps": 5, "max_iter": 20, "context_length": 2}
# Of these only one may be given.
OFFICIAL = {"clip-adapter": {"epochs": 2, "steps": None, "recipe": "official"}}


def quick(name, **more):
    """Those of the method ``name``; of ``more``, what it has."""
    fields = {f.name for f in dataclasses.fields(get_method(name))}
    options = {k: v for k, v in (SHORT | more).items() if k in fields}
    return options | OFFICIAL.get(name, {})
