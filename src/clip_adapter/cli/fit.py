"""``clip-adapter fit``: labelled pictures in, a saved classifier out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import Output, command, listed
from clip_adapter.options import DEFAULT_METHOD, DEFAULT_SEED, Compute, Precision

DEFAULT_OUT = "classifier"


def fit(
    data: o.Data,
    backbone: o.Backbone = o.DEFAULTS.backbone,
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
    views: o.Views = o.DEFAULTS.views,
    prompt: o.Prompt = None,
    descriptions: o.Descriptions = None,
    class_names: o.ClassNames = None,
    root: o.Root = None,
    style: o.StyleOption = o.DEFAULTS.style,
    device: o.Device = o.DEFAULTS.device,
    dtype: o.DtypeOption = o.DEFAULTS.dtype,
    batch_size: o.BatchSize = o.DEFAULTS.batch_size,
    cache: o.Cache = None,
    strict: o.Strict = o.DEFAULTS.strict,
    feature_norm: o.FeatureNorm = o.DEFAULTS.feature_norm,
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            help="How many GPUs (or processes on the CPU) train together.",
            rich_help_panel=o.INSIDE,
        ),
    ] = o.COMPUTE.devices,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Number format of the training: 16-mixed and bf16-mixed are faster on GPUs.",
            rich_help_panel=o.INSIDE,
        ),
    ] = o.COMPUTE.precision,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            help="Cut every batch into this many parts, to need less memory.",
            rich_help_panel=o.INSIDE,
        ),
    ] = o.COMPUTE.accumulate,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the state of the training here; the same command goes on from it.",
            show_default="nothing is kept",
            rich_help_panel=o.INSIDE,
        ),
    ] = o.COMPUTE.checkpoint,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "--output",
            metavar="DIR",
            help="Where the classifier is saved. A classifier that is there is replaced.",
            rich_help_panel=o.RESULT,
        ),
    ] = Path(DEFAULT_OUT),
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
        from clip_adapter import fitting
        from clip_adapter.classifier import saving

        compute = Compute(
            devices=devices, precision=precision, accumulate=accumulate, checkpoint=checkpoint
        )
        saving.check_target(out)
        classifier = fitting.fit(
            data,
            method=method,
            options=o.key_values(option),
            shots=shots,
            seed=seed,
            compute=None if compute == o.COMPUTE else compute,
            backbone=backbone,
            device=device,
            dtype=dtype,
            prompts=tuple(prompt or ()),
            descriptions=descriptions,
            class_names=class_names,
            root=root,
            style=style,
            views=views,
            cache=cache,
            strict=strict,
            batch_size=batch_size,
            feature_norm=feature_norm,
        )
        classifier.save(out)
        info = {"hyperparameters": {}, "selection": [], **classifier.info, "out": str(out)}
        output.show(*told(info, classifier.class_names, data, root))
        output.result(info)


def told(
    info: dict[str, Any], class_names: list[str], data: str, root: Path | None = None
) -> list[str]:
    """What ``fit`` did, in plain words."""
    from clip_adapter.training.selection import choice

    lines = [
        f"{info['method']}: {info['classes']} classes ({listed(class_names, 6)}), "
        f"{info['train_pictures']} pictures, at most {info['shots']} of a class."
    ]
    if info["skipped"]:
        lines.append(f"Skipped: {len(info['skipped'])} pictures that could not be read (above).")
    if info.get("backbone"):
        lines.append(f"Backbone: {info['backbone']}.")
    # One candidate alone is what the user gave.
    for curve in (c for c in info["selection"] if len(c["candidates"]) != 1):
        chosen = choice(curve["parameter"], curve["chosen"])
        lines.append(f"Chosen: {chosen} ({curve['rule']}).")
    lines += _members(info["hyperparameters"].get("members"))
    lines += _held_out(info.get("held_out"))
    lines.append(
        f"Time: {info['embed_seconds']:.1f} s to get the features, "
        f"{info['seconds']:.1f} s to learn."
    )
    lines.append(f"Saved: {info['out']}")
    test = f"{data.rpartition('#')[0]}#TEST_SET" if "#" in data else data
    where = () if root is None else ("--root", root)
    lines.append(f"Next: {command('evaluate', info['out'], test, *where)}")
    if info.get("backbone_fingerprint"):
        lines.append(f"      {command('predict', info['out'])} NEW_PICTURES")
    return lines


def _members(found: dict[str, Any] | None) -> list[str]:
    """What a blend is made of, and what each part is."""
    from clip_adapter.methods import get_method

    if not found:
        return []
    shares = sorted(found, key=lambda name: -found[name]["share"])
    return [f"  {100 * found[n]['share']:3.0f} % {n}: {get_method(n).summary}" for n in shares]


def _held_out(found: dict[str, Any] | None) -> list[str]:
    """How the chosen setting did on held-out pictures, beside zero-shot."""
    if found is None or found["zero_shot_accuracy"] is None:
        return []
    return [
        f"  On {found['pictures']} held-out pictures {found['accuracy']:.1f} % were right, and "
        f"{found['zero_shot_accuracy']:.1f} % with zero-shot CLIP. (A guide, not a test.)"
    ]


def add(app: typer.Typer) -> None:
    """Makes this a command of ``app``."""
    app.command(no_args_is_help=True)(fit)
