"""Prompt templates: one per data set of the paper, and its ensemble of seven for ImageNet.

Source: CLIP-Adapter (arXiv 2110.04544), section 4.1 and Table 7; the wording is CLIP's and CoOp's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from clip_adapter.datasets.catalog import DEFAULT_TEMPLATE, RECORDS, known_benchmark
from clip_adapter.errors import UsageError, unknown_name

_ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
# Shifts of ImageNet are only tested on, and have no prompt of their own.
_SINGLE = {name: (record.template,) for name, record in RECORDS.items() if record.sizes["train"]}
TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict(sorted({**_SINGLE, "imagenet-ensemble": _ENSEMBLE}.items()))
)
"""Built-in templates by name, T templates each; ``--prompt`` takes these names too."""


def known_dataset(*names: str) -> str | None:
    """The data set of :data:`TEMPLATES` that one of ``names`` spells, or None."""
    return next((known for known in map(known_benchmark, names) if known in TEMPLATES), None)


def resolve_templates(prompts: Sequence[str] | None, dataset: str | None = None) -> list[str]:
    """The T templates to use.

    Args:
        prompts: each a template with exactly one ``{}``, or a name in :data:`TEMPLATES`; several
            make an ensemble. None or empty: those of ``dataset``.
        dataset: the name of a data set; one that is not known gets :data:`DEFAULT_TEMPLATE`.

    Raises:
        UsageError: a prompt that is neither.
    """
    if not prompts:
        return list(TEMPLATES.get(known_dataset(dataset or "") or "", (DEFAULT_TEMPLATE,)))
    resolved: list[str] = []
    for prompt in prompts:
        if prompt in TEMPLATES:
            resolved += TEMPLATES[prompt]
        elif prompt.count("{}") == 1:
            resolved.append(prompt)
        elif "{" in prompt or any(character.isspace() for character in prompt.strip()):
            raise UsageError(
                f"The prompt {prompt!r} has {prompt.count('{}')} places for the class name.",
                allowed="exactly one {}, as in 'a photo of a {}.'",
            )
        else:
            raise unknown_name(
                "prompt template",
                prompt,
                TEMPLATES,
                "Or write a template with one {}, as in 'a photo of a {}.'",
            )
    return list(dict.fromkeys(resolved))


def fill(template: str, class_name: str) -> str:
    """The prompt of one class. Other braces, in the template or the name, stay as they are."""
    return template.replace("{}", class_name)
