"""The model card that is saved beside a classifier, made from its own record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clip_adapter.wording import printable

SHOWN_CLASSES = 50


def model_card(class_names: Sequence[str], info: Mapping[str, Any], inside: str | None) -> str:
    """Markdown with the hub's front matter; states only what the run recorded.

    Args:
        class_names: C names.
        info: the record of the run.
        inside: kind of what was trained inside the visual tower, or None.
    """
    names = ", ".join(f"`{printable(str(name))}`" for name in class_names[:SHOWN_CLASSES])
    if len(class_names) > SHOWN_CLASSES:
        names += f" and {len(class_names) - SHOWN_CLASSES} more"
    sentences = info.get("descriptions")
    if sentences is not None:
        sentences = "{sentences} sentences of `{file}` (SHA-256 {sha256:.12})".format_map(sentences)
    shots, count = info.get("shots"), info.get("train_pictures")
    if shots and count and count < shots * len(class_names):
        shots = f"at most {shots}"
    rows = {
        "Method": info.get("method"),
        "Backbone": info.get("backbone"),
        "Backbone fingerprint": info.get("backbone_fingerprint"),
        "Shots per class": shots,
        "Training pictures": count,
        "Seed": info.get("seed"),
        "Prompt templates": ", ".join(f"`{t}`" for t in info.get("templates") or []),
        "Trained inside a copy of the visual tower": inside,
        "Descriptions": sentences,
        "Trained parameters": info.get("trained_parameters"),
        "Seconds to train": info.get("seconds"),
        "Versions": ", ".join(f"{k} {v}" for k, v in (info.get("versions") or {}).items()),
    }
    table = "\n".join(f"| {k} | {v} |" for k, v in rows.items() if v not in (None, ""))
    notes = "".join(f"- {' '.join(line.split())}\n" for line in info.get("notes") or [])
    chosen = json.dumps(info.get("hyperparameters", {}), indent=1, ensure_ascii=False)
    return f"""---
library_name: clip-adapter
pipeline_tag: image-classification
tags: [clip, few-shot, clip-adapter]
---

# A few-shot classifier of {len(class_names)} classes

Made by [clip-adapter](https://arxiv.org/abs/2110.04544) from a frozen CLIP.

| | |
|---|---|
{table}
{
        f'''
Of the training data:

{notes}
'''
        if notes
        else ""
    }
Hyper-parameters, chosen on the training pictures alone:

```json
{chosen}
```

Classes: {names}.

## Use

```python
from clip_adapter import Classifier

classifier = Classifier.from_pretrained("FOLDER_OR_REPOSITORY")
print(classifier.predict(["picture.jpg"]))
```

It answers one of the classes above for every picture, also for a picture of something else.
"""
