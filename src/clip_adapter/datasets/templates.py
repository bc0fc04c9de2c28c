"""Prompt templates: one per data set of the paper, and its ensemble of seven for ImageNet.

Source: CLIP-Adapter (arXiv 2110.04544), section 4.1 and Table 7; the wording is CLIP's and CoOp's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from clip_adapter.errors import UsageError, unknown_name

DEFAULT_TEMPLATE = "a photo of a {}."

TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "caltech101": (DEFAULT_TEMPLATE,),
        "dtd": ("{} texture.",),
        "eurosat": ("a centered satellite photo of {}.",),
        "fgvc_aircraft": ("a photo of a {}, a type of aircraft.",),
        "food101": ("a photo of {}, a type of food.",),
        "imagenet": (DEFAULT_TEMPLATE,),
        "imagenet-ensemble": (
            "itap of a {}.",
            "a bad photo of the {}.",
            "a origami {}.",
            "a photo of the large {}.",
            "a {} in a video game.",
            "art of the {}.",
            "a photo of the small {}.",
        ),
        "oxford_flowers": ("a photo of a {}, a type of flower.",),
        "oxford_pets": ("a photo of a {}, a type of pet.",),
        "stanford_cars": (DEFAULT_TEMPLATE,),
        "sun397": (DEFAULT_TEMPLATE,),
        "ucf101": ("a photo of a person doing {}.",),
    }
)
"""Built-in templates by name, T templates each; ``--prompt`` takes these names too."""

# Other spellings of the same sets, without case and punctuation.
_ALIASES = {
    "describabletextures": "dtd",
    "flowers102": "oxford_flowers",
    "ilsvrc2012": "imagenet",
    "imagenet1k": "imagenet",
    "oxfordflowers102": "oxford_flowers",
    "oxfordiiitpet": "oxford_pets",
}


def known_dataset(*names: str) -> str | None:
    """The data set of :data:`TEMPLATES` that one of ``names`` spells, or None.

    Case, punctuation and CoOp's prefix ``split_zhou_`` do not count; the whole name must match.
    """
    spelled = {bare_name(key): key for key in TEMPLATES if key != "imagenet-ensemble"} | _ALIASES
    known = (spelled.get(bare_name(name.removeprefix("split_zhou_"))) for name in names)
    return next(filter(None, known), None)


def bare_name(name: str) -> str:
    """A name without case and punctuation."""
    return re.sub(r"[\W_]", "", name).lower()


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
        return list(TEMPLATES[known_dataset(dataset or "") or "imagenet"])
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
            hint = "Or write a template with one {}, as in 'a photo of a {}.'"
            raise unknown_name("prompt template", prompt, TEMPLATES, hint)
    return list(dict.fromkeys(resolved))


def fill(template: str, class_name: str) -> str:
    """The prompt of one class. Other braces, in the template or the name, stay as they are."""
    return template.replace("{}", class_name)
