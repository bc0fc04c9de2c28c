"""``clip-adapter fit``: labelled pictures in, a saved classifier out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import SCHEMA, Output, command
from clip_adapter.options import DEFAULT_METHOD, DEFAULT_SEED, Compute, SourceOptions, changed
from clip_adapter.wording import shortened, some_of


@o.with_options
def fit(
    data: o.Data,
    *,
    reading: SourceOptions,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How to learn: 'clip-adapter ls methods' explains them. zero-shot learns nothing "
            "and uses the class names alone.",
            rich_help_panel=o.TRAINING,
        ),
    ] = DEFAULT_METHOD,
    shots: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Use only K pictures of each class, drawn at random, as few-shot experiments do.",
            show_default="all of them",
            rich_help_panel=o.TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Decides the draw and the training. The same seed gives the same classifier.",
            rich_help_panel=o.TRAINING,
        ),
    ] = DEFAULT_SEED,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--option",
            metavar="KEY=VALUE",
            help="An option of the method, such as visual_ratio=0.2. May be given several times.",
            rich_help_panel=o.TRAINING,
        ),
    ] = None,
    compute: Compute,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "--output",
            metavar="DIR",
            help="Where the classifier is saved. A classifier that is there is replaced; other "
            "files there stay.",
            rich_help_panel=o.RESULT,
        ),
    ] = Path("classifier"),
    json: o.Json = False,
) -> None:
    """Learn your classes from a few labelled pictures.

    Put the pictures into one folder per class (`photos/cat/1.jpg`, `photos/dog/7.jpg`); 4 to 16 of
    each are enough. Name the folders in plain English: CLIP reads the names. Folders `train` and
    `test` above the classes are understood, and only `train` is learned from.

    Several ways of learning are blended, mildly at first. How far your pictures may change what
    CLIP says is decided on your own pictures, by learning from some of them and trying the rest;
    `--method clip-adapter` is the method of the paper alone.

    **Examples**

        clip-adapter fit photos/
        clip-adapter fit photos/ --backbone ViT-B-16/openai --shots 16 --out pets
        clip-adapter fit pictures.csv --prompt "a satellite photo of {}."
        clip-adapter fit features.safetensors#train --method clip-adapter -o visual_ratio=0.2
    """
    with Output(json) as output:
        o.check_paths(data, reading)
        options = o.key_values(option)
        from clip_adapter import fitting
        from clip_adapter.classifier.folder import check_target

        check_target(out)
        classifier = fitting.fit(
            data,
            method=method,
            options=options,
            shots=shots,
            seed=seed,
            compute=compute if changed(compute) else None,
            **changed(reading),
        )
        classifier.save(out)
        info = {"hyperparameters": {}, "selection": [], **classifier.info, "out": str(out)}
        output.show(*summary(info, classifier.class_names, data, reading.root))
        output.result({"schema": SCHEMA, **info})


def summary(
    info: dict[str, Any], class_names: list[str], data: str, root: str | Path | None = None
) -> list[str]:
    """What ``fit`` did, in plain words."""
    from clip_adapter.methods import get_method
    from clip_adapter.training.selection import choice

    members = info["hyperparameters"].get("members") or {}
    shares = {name: 100 * member["share"] for name, member in members.items()}
    # One candidate alone is what the user gave.
    selections = [one for one in info["selection"] if len(one["candidates"]) != 1]
    held = info.get("held_out") or {"zero_shot_accuracy": None}
    test = f"{data.rpartition('#')[0]}#TEST_SET" if "#" in data else data
    lines = [
        f"{info['method']}: {info['classes']} classes ({some_of(map(shortened, class_names), 6)}), "
        f"{info['train_pictures']} pictures, at most {info['shots']} of a class.",
        info["skipped"]
        and f"Skipped: {len(info['skipped'])} pictures that could not be read (above).",
        info.get("backbone") and f"Backbone: {info['backbone']}.",
        *(f"Chosen: {choice(s['parameter'], s['chosen'])} ({s['rule']})." for s in selections),
        *(
            f"  {shares[name]:3.0f} % {name}: {get_method(name).summary}"
            for name in sorted(shares, key=shares.__getitem__, reverse=True)
        ),
        held["zero_shot_accuracy"] is not None
        and f"  On {held['pictures']} held-out pictures {held['accuracy']:.1f} % were right, and "
        f"{held['zero_shot_accuracy']:.1f} % with zero-shot CLIP. (A guide, not a test.)",
        f"Time: {info['embed_seconds']:.1f} s to get the features, {info['seconds']:.1f} s to "
        "learn.",
        f"Saved: {info['out']}",
        f"Next: {command('evaluate', info['out'], test, *(['--root', root] if root else []))}",
        info.get("backbone_fingerprint")
        and f"      {command('predict', info['out'])} NEW_PICTURES",
    ]
    return [line for line in lines if line]
