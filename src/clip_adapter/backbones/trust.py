"""What a model repository's configuration may ask for, so that no code of it is ever run.

open_clip hands some entries of ``open_clip_config.json`` on to ``transformers`` and ``timm``, and
``transformers`` runs Python files of a repository where it is asked to (``trust_remote_code``), or
asks the person at the terminal. Here the answer is always no.
"""

from __future__ import annotations

import re
from typing import Any

from clip_adapter.backbones.hub import reason_of
from clip_adapter.errors import BackboneError

# How texts are cleaned; everything that open_clip's own model configurations set is among them.
TOKENIZER_OPTIONS = ("clean", "language", "reduction_mask", "strip_sep_token")
REFUSED = "Take another repository of the model, or remove the entry after reading what it does."


def model_config(identifier: str) -> dict[str, Any]:
    """What open_clip reads for ``identifier``; {} where there is nothing that it can read."""
    import open_clip

    try:
        config = open_clip.get_model_config(identifier)
    except (AttributeError, OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def check_config(name: str, config: dict[str, Any]) -> None:
    """Whether the model of ``config`` can be made without any code but what is installed here.

    Args:
        name: of the backbone.
        config: the model configuration of a repository or a folder.

    Raises:
        BackboneError: it asks for more.
    """
    text, vision = config.get("text_cfg") or {}, config.get("vision_cfg") or {}
    if not isinstance(text, dict) or not isinstance(vision, dict):
        raise BackboneError(
            f"The configuration of {name} describes no towers.",
            allowed="text_cfg and vision_cfg with names and values",
        )
    _check_tokenizer(name, text.get("tokenizer_kwargs") or {})
    timm = vision.get("timm_model_name")
    if timm and not re.fullmatch(r"[\w.-]+", str(timm)):
        raise BackboneError(
            f"The configuration of {name} takes its visual tower from {timm!r}.",
            allowed="the bare name of an architecture of timm",
            hint=REFUSED,
        )
    if told := text.get("hf_model_name"):
        _check_transformers(name, told)


def tokenizer_options(config: dict[str, Any]) -> dict[str, Any]:
    """Options for the tokenizer of ``config``: transformers is told no before it asks."""
    from_transformers = (config.get("text_cfg") or {}).get("hf_tokenizer_name")
    return {"trust_remote_code": False} if from_transformers else {}


def _check_tokenizer(name: str, options: Any) -> None:
    """Raises BackboneError unless ``options`` are known ones with plain values."""
    known = isinstance(options, dict) and all(
        key in TOKENIZER_OPTIONS and isinstance(value, str | bool | None)
        for key, value in options.items()
    )
    if not known:
        raise BackboneError(
            f"The configuration of {name} gives its tokenizer the options {options!r:.200}; some "
            "could run code of the repository.",
            allowed=f"{', '.join(TOKENIZER_OPTIONS)}, each with a word, true or false",
            hint=REFUSED,
        )


def _check_transformers(name: str, model: Any) -> None:
    """Raises BackboneError where transformers itself does not have the text tower ``model``."""
    if not isinstance(model, str) or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model):
        raise BackboneError(
            f"The configuration of {name} takes its text tower from {model!r:.200}.",
            allowed="ORG/REPO of the Hugging Face hub",
            hint=REFUSED,
        )
    try:
        from transformers import AutoConfig  # pyright: ignore[reportMissingImports]
    except ImportError:
        return  # open_clip cannot make it either, and says so
    try:
        found = AutoConfig.from_pretrained(model, trust_remote_code=False)
        if "AutoModel" in (getattr(found, "auto_map", None) or {}):
            raise ValueError("its model is code of the repository")
    except Exception as error:  # transformers raises errors of many kinds
        raise BackboneError(
            f"The text tower {model} of {name} cannot be read without running code of its "
            f"repository, or not at all: {reason_of(error)}",
            allowed="models whose code is in the package transformers",
            hint="pip install 'clip-adapter[siglip]', let it reach the hub once, or take another "
            "backbone.",
        ) from error
