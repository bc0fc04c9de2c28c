"""``clip-adapter embed``: features of pictures into a file, for other programs and for ``fit``."""

from __future__ import annotations

import json as json_format
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import Output, command
from clip_adapter.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from clip_adapter.features.embed import BadPicture
    from clip_adapter.features.feature_set import FeatureSet
    from clip_adapter.options import SourceOptions

Found = tuple[dict[str, "FeatureSet"], "Tensor | None", dict[str, Any], list["BadPicture"]]


def embed(
    data: o.Data,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "--output",
            metavar="FILE",
            help="The file to write: .safetensors or .parquet.",
            rich_help_panel=o.RESULT,
        ),
    ],
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this part: train, val or test. May be given several times.",
            show_default="all there are",
            rich_help_panel=o.READING,
        ),
    ] = None,
    unlabelled: Annotated[
        bool,
        typer.Option(
            "--unlabelled",
            help="DATA is a folder of pictures without classes: embed all of them.",
            rich_help_panel=o.READING,
        ),
    ] = False,
    backbone: o.Backbone = o.DEFAULTS.backbone,
    views: o.Views = o.DEFAULTS.views,
    prompt: o.Prompt = None,
    class_names: o.ClassNames = None,
    root: o.Root = None,
    style: o.StyleOption = o.DEFAULTS.style,
    device: o.Device = o.DEFAULTS.device,
    dtype: o.DtypeOption = o.DEFAULTS.dtype,
    batch_size: o.BatchSize = o.DEFAULTS.batch_size,
    cache: o.Cache = None,
    strict: o.Strict = o.DEFAULTS.strict,
    json: o.Json = False,
) -> None:
    """Turn pictures into features (lists of numbers that describe them), once and for all.

    The file holds one set per part (train, val, test, or all where there are no parts), the class
    names, the features of their descriptions, and which backbone made them. 'fit', 'evaluate' and
    'predict' read it as FILE#SET, without looking at the pictures again. 'fit' does all this by
    itself; use 'embed' to take features elsewhere.

    **Examples**

        clip-adapter embed photos/ --out photos.safetensors
        clip-adapter embed photos/ --out photos.parquet --split test --backbone demo
        clip-adapter embed holiday/ --unlabelled --out holiday.safetensors
    """
    with Output(json) as output:
        from clip_adapter.features.write import WRITABLE, write_features
        from clip_adapter.fitting import source_options

        if out.suffix.lower() not in WRITABLE:
            raise UsageError(f"--out {out}", allowed=f"a name that ends in {', '.join(WRITABLE)}")
        reading = source_options(
            {
                "backbone": backbone,
                "device": device,
                "dtype": dtype,
                "prompts": tuple(prompt or ()),
                "class_names": class_names,
                "root": root,
                "style": style,
                "views": views,
                "cache": cache,
                "strict": strict,
                "batch_size": batch_size,
            }
        )
        start = time.perf_counter()
        read = _unlabelled(data, reading) if unlabelled else _labelled(data, split, reading)
        sets, text, meta, skipped = read
        write_features(out, sets, text, meta)
        seconds = time.perf_counter() - start
        first = next(iter(sets.values()))
        output.show(
            *(f"{out}#{n}: {len(s)} pictures, {s.views} view(s)" for n, s in sets.items()),
            f"{len(first.class_names)} classes, features of size {first.dim} by "
            f"{meta['backbone']}, {seconds:.1f} s.",
            *([f"Skipped: {len(skipped)} pictures that could not be read."] if skipped else []),
            f"Next: {_next(out, list(sets), unlabelled)}",
        )
        output.result(
            {
                "out": str(out),
                "sets": {name: len(one) for name, one in sets.items()},
                "classes": len(first.class_names),
                "dim": first.dim,
                "views": views,
                "text": text is not None,
                "seconds": round(seconds, 3),
                "skipped": [{"name": b.name, "reason": b.reason} for b in skipped],
                **meta,
            }
        )


def _next(out: Path, sets: list[str], unlabelled: bool) -> str:
    if unlabelled:
        return command("predict", "CLASSIFIER", f"{out}#{sets[0]}")
    return command("fit", f"{out}#{'train' if 'train' in sets else sets[0]}")


def _labelled(data: str, split: list[str] | None, reading: SourceOptions) -> Found:
    from clip_adapter.sources import FeatureSource, open_source

    source = open_source(data, reading)
    if isinstance(source, FeatureSource):
        raise UsageError(f"{data} holds features already.", hint="Name pictures.")
    sets, skipped = {}, []
    for name in split or source.splits():
        # Random views are for learning; what is tested is seen plainly.
        views = reading.views if name not in ("val", "test") else 1
        sets[name], bad = source.features(name, None, views)
        skipped += bad
    facts = source.facts()
    meta = {key: facts[key] for key in ("backbone", "backbone_fingerprint", "dtype", "preprocess")}
    meta["logit_scale"] = source.logit_scale
    meta["templates"] = json_format.dumps(facts["templates"], ensure_ascii=False)
    return sets, source.text_weights(), meta, skipped


def _unlabelled(data: str, reading: SourceOptions) -> Found:
    from clip_adapter.cli.inputs import pictures
    from clip_adapter.datasets.dataset import UNSPLIT, Sample
    from clip_adapter.features.embed import extract

    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise DataError(f"{data} is no folder.", hint="--unlabelled takes a folder of pictures.")
    backbone = reading.load_backbone()
    features, skipped = extract(
        backbone,
        [Sample(item.path, -1, Path(item.path)) for item in pictures(folder, recursive=True)],
        [],
        store=reading.store(),
        style=reading.style,
        views=reading.views,
        batch_size=reading.batch_size,
        strict=reading.strict,
    )
    meta = {
        "backbone": backbone.name,
        "backbone_fingerprint": backbone.fingerprint,
        "dtype": backbone.dtype,
        "preprocess": reading.style,
        "logit_scale": backbone.logit_scale,
    }
    return {UNSPLIT: features}, None, meta, skipped


def add(app: typer.Typer) -> None:
    """Makes this a command of ``app``."""
    app.command(no_args_is_help=True)(embed)
