"""``clip-adapter fit``: labelled pictures in, a saved classifier out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.evaluate import OFFERED, class_table, worst
from clip_adapter.cli.output import FEATURES_KEPT, SCHEMA, Output, command
from clip_adapter.datasets.splits import check_shots, share_or_number
from clip_adapter.known_names import check_method
from clip_adapter.options import (
    DEFAULT_METHOD,
    DEFAULT_SEED,
    HELD_OUT,
    Compute,
    SourceOptions,
    changed,
)
from clip_adapter.wording import counted, shortened, some_of

if TYPE_CHECKING:
    from clip_adapter.classifier import Classifier
    from clip_adapter.classifier.saving import Record
    from clip_adapter.datasets.open import DataSpec


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
    hold_out: Annotated[
        str | None,
        typer.Option(
            "--hold-out",
            metavar="SHARE",
            help="Keep a share of each class apart (20%), or so many pictures of each (5), drawn "
            "at random, and count at the end how many of these are recognised.",
            show_default="learn from all",
            rich_help_panel=o.TRAINING,
        ),
    ] = None,
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
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Also say which settings were chosen, and by which rule.",
            rich_help_panel=o.RESULT,
        ),
    ] = False,
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
        clip-adapter fit photos/ --hold-out 20%
        clip-adapter fit photos/ --backbone ViT-B-16/openai --shots 16 --out pets
        clip-adapter fit pictures.csv --prompt "a satellite photo of {}."
        clip-adapter fit features.safetensors#train --method clip-adapter -o visual_ratio=0.2
    """
    with Output(json, FEATURES_KEPT) as output:
        from clip_adapter.datasets.open import parse_spec

        check_method(method)
        options = o.key_values(option)
        if shots is not None:
            check_shots(shots)
        if hold_out is not None:
            share_or_number(hold_out)
        spec = parse_spec(data, reading.root)
        o.check_reading(reading)
        o.check_backbone(reading, pictures=spec.kind != "features")
        from clip_adapter import fitting
        from clip_adapter.classifier.folder import check_target, saved_record

        check_target(out)
        classifier = fitting.fit(
            spec,
            method=method,
            options=options,
            shots=shots,
            seed=seed,
            hold_out=hold_out,
            compute=compute if changed(compute) else None,
            **changed(reading),
        )
        report = None
        if hold_out is not None:
            from clip_adapter import evaluation

            heeded = {k: v for k, v in changed(reading).items() if k in OFFERED}
            report = evaluation.evaluate(classifier, spec, split=HELD_OUT, **heeded)
            classifier.info["hold_out"] |= {
                "scored": report.n,
                "top1": report.top1,
                "zero_shot_top1": report.zero_shot_top1,
            }
        older = saved_record(out)
        classifier.save(out)
        info = {"hyperparameters": {}, "selection": [], **classifier.info, "out": str(out)}
        if older is not None:
            info |= replaced_classifier(older, classifier)
        text = classifier.text_weights is not None
        lines = summary(info, classifier.class_names, verbose=verbose, text=text)
        if reading.backbone is None and spec.kind != "features":
            lines += better_backbone(info["backbone"])
        lines += quality(info) if report is None else [*report.lines(), worst(report)]
        output.show(*lines, *next_steps(info, spec, reading.root))
        output.result({"schema": SCHEMA, **info, **({"test": report.to_dict()} if report else {})})


def summary(
    info: dict[str, Any], class_names: list[str], *, verbose: bool = False, text: bool = True
) -> list[Any]:
    """What ``fit`` did, in plain words; with ``verbose`` what it chose, and by which rule."""
    lines = [
        f"{info['method']}: {info['classes']} classes ({some_of(map(shortened, class_names), 6)}), "
        f"{counted(info['train_pictures'], 'picture')}, at most {info['shots']} of a class.",
        info["skipped"]
        and f"Skipped: {counted(len(info['skipped']), 'picture')} that could not be read (above).",
        info.get("backbone") and f"Backbone: {info['backbone']}.",
        *(chosen_settings(info) if verbose else [how_chosen(info, text=text)]),
        f"Time: {info['embed_seconds']:.1f} s to get the features, {info['seconds']:.1f} s to "
        "learn.",
        f"Saved: {info['out']}{in_place_of(info)}",
    ]
    return [line for line in lines if line]


def replaced_classifier(older: Record, classifier: Classifier) -> dict[str, Any]:
    """For the result: what ``classifier`` took the place of, where classes or backbone differ."""
    was = {"class_names": older.class_names, "backbone": older.info.get("backbone")}
    now = {"class_names": classifier.class_names, "backbone": classifier.info.get("backbone")}
    return {"replaced": was} if was != now else {}


def in_place_of(info: dict[str, Any]) -> str:
    """Of what :func:`replaced_classifier` found, in brackets; "" where it found nothing."""
    if not (was := info.get("replaced")):
        return ""
    names, other = was["class_names"], was["backbone"] != info.get("backbone")
    by = f" by {was['backbone']}" if other and was["backbone"] else ""
    return (
        f" (in place of a classifier of {len(names)} classes{by}: "
        f"{some_of(map(shortened, names), 6)})"
    )


def better_backbone(name: str) -> list[str]:
    """The backbone that costs as much as ``name`` and is better as published, in one line."""
    from clip_adapter.backbones.table import better_one, find

    own, better = find(name), better_one(name)
    if own is None or better is None:
        return []
    return [
        f"As published {better.name} is better at no more cost: {better.imagenet:.1f} % zero-shot "
        f"on ImageNet against {own.imagenet:.1f} ({command('ls', 'backbones')} compares them)."
    ]


def selections(info: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of what was chosen; one candidate alone is what the user gave."""
    return [one for one in info["selection"] if len(one["candidates"]) != 1]


def how_chosen(info: dict[str, Any], *, text: bool) -> str:
    """How the settings were chosen, in one sentence; "" where all were given.

    Without ``text`` nothing is said of CLIP, which says nothing without class names.
    """
    if not selections(info):
        return ""
    if pictures := max(one["pictures"] for one in selections(info)):
        what = "How far your pictures may change what CLIP says was" if text else "Settings were"
        of = "them" if text else "your pictures"
        return f"{what} tried out on {pictures} of {of} (--verbose tells the details)."
    what = "Your pictures may change little of what CLIP says" if text else "Settings are fixed"
    return f"{what}: too few classes have two pictures, to learn from one and try the other."


def chosen_settings(info: dict[str, Any]) -> list[str]:
    """What was chosen, by which rule, and the parts of a blend by their shares."""
    from clip_adapter.methods import get_method
    from clip_adapter.training.selection import choice

    members = info["hyperparameters"].get("members") or {}
    shares = {name: 100 * member["share"] for name, member in members.items()}
    return [
        *(
            f"Chosen: {choice(s['parameter'], s['chosen'])} ({s['rule']})."
            for s in selections(info)
        ),
        *(
            f"  {shares[name]:3.0f} % {name}: {get_method(name).summary}"
            for name in sorted(shares, key=shares.__getitem__, reverse=True)
        ),
    ]


def quality(info: dict[str, Any]) -> list[Any]:
    """What cross-validation said of the chosen settings, class by class; marked as optimistic."""
    held = info.get("held_out")
    if not held:
        return []
    beside = held["zero_shot_accuracy"]
    return [
        f"Tried on {held['pictures']} of your pictures, each time after learning from the others: "
        f"{held['accuracy']:.1f} % right"
        + ("." if beside is None else f", {beside:.1f} % by zero-shot CLIP."),
        "A guide and no test: the settings were chosen on these pictures, so this is optimistic.",
        class_table(
            held["per_class"],
            held["class_counts"],
            held["zero_shot_per_class"],
            "Right answers by class, worst first (optimistic)",
        ),
    ]


def next_steps(info: dict[str, Any], spec: DataSpec, root: str | Path | None = None) -> list[str]:
    """Commands that go on from here, of which each will find what it needs."""
    place = ["--root", root] if root else []
    features = spec.kind == "features"
    tests = [name for name in info["other_splits"] if features or name == "test"]
    steps = []
    if tests:
        file, best = spec.text.rpartition("#")[0], min(tests, key=lambda name: "test" not in name)
        test = f"{file}#{best}" if features else spec
        steps = [command("evaluate", info["out"], test, *place)]
    elif info["not_drawn"] and "hold_out" not in info:
        steps = [command("evaluate", info["out"], spec, "--split", HELD_OUT, *place)]
    if info.get("backbone_fingerprint"):
        steps.append(f"{command('predict', info['out'])} NEW_PICTURES")
    lines = [f"{'      ' if i else 'Next: '}{step}" for i, step in enumerate(steps)]
    if not tests and not info["not_drawn"]:
        lines.append(
            "No picture was kept apart for a test: --hold-out 20% keeps some, and 'clip-adapter "
            "evaluate' takes other labelled pictures."
        )
    return lines
