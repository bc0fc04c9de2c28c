"""The model card that is saved beside a classifier, made from its own record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_adapter.classifier import Classifier

SHOWN_CLASSES = 50


def _descriptions(told: dict[str, Any] | None) -> str | None:
    """One line on the file of class descriptions, if there was one."""
    if told is None:
        return None
    return f"{told['sentences']} sentences of `{told['file']}` (SHA-256 {told['sha256'][:12]})"


def model_card(classifier: Classifier) -> str:
    """Markdown with the hub's front matter; states only what the run recorded."""
    info = classifier.info
    names = classifier.class_names
    listed = ", ".join(f"`{n}`" for n in names[:SHOWN_CLASSES])
    more = f" and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
    rows = [
        ("Method", info.get("method")),
        ("Backbone", info.get("backbone")),
        ("Backbone fingerprint", info.get("backbone_fingerprint")),
        ("Shots per class", info.get("shots")),
        ("Training pictures", info.get("train_pictures")),
        ("Seed", info.get("seed")),
        ("Prompt templates", ", ".join(f"`{t}`" for t in info.get("templates") or []) or None),
        (
            "Trained inside a copy of the visual tower",
            getattr(classifier.tower_adapter, "kind", None),
        ),
        ("Descriptions", _descriptions(info.get("descriptions"))),
        ("Trained parameters", info.get("trained_parameters")),
        ("Seconds to train", info.get("seconds")),
        ("Versions", ", ".join(f"{k} {v}" for k, v in (info.get("versions") or {}).items())),
    ]
    table = "\n".join(f"| {k} | {v} |" for k, v in rows if v not in (None, ""))
    chosen = json.dumps(info.get("hyperparameters", {}), indent=1, ensure_ascii=False)
    return f"""---
library_name: clip-adapter
pipeline_tag: image-classification
tags: [clip, few-shot, clip-adapter]
---

# A few-shot classifier of {len(names)} classes

Made by [clip-adapter](https://arxiv.org/abs/2110.04544) from a frozen CLIP.

| | |
|---|---|
{table}

Hyper-parameters, chosen on the training pictures alone:

```json
{chosen}
```

Classes: {listed}{more}.

## Use

```python
from clip_adapter import Classifier

classifier = Classifier.from_pretrained("FOLDER_OR_REPOSITORY")
print(classifier.predict(["picture.jpg"]))
```

It answers one of the classes above for every picture, also for a picture of something else.
"""
