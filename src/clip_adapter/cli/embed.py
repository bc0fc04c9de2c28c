"""``clip-adapter embed``: features of pictures into a file, for other programs and for ``fit``."""

from __future__ import annotations

import json as json_format
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import FEATURES_KEPT, Output, command
from clip_adapter.errors import DataError, UsageError, unknown_name
from clip_adapter.files import check_file
from clip_adapter.options import SourceOptions
from clip_adapter.paths import WRITABLE
from clip_adapter.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from clip_adapter.datasets.open import DataSpec
    from clip_adapter.features.embed import BadPicture
    from clip_adapter.features.feature_set import FeatureSet

Embedded = tuple[dict[str, "FeatureSet"], "Tensor | None", dict[str, Any], list["BadPicture"]]
OFFERED = (
    *("backbone", "views", "prompts", "class_names", "root", "preprocess"),
    *("decode", "device", "dtype", "runtime", "batch_size", "cache", "strict"),
)


@o.with_options
def embed(
    data: o.Data,
    *,
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
    reading: Annotated[SourceOptions, o.Only(OFFERED)],
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
    with Output(json, FEATURES_KEPT) as output:
        spec = o.read_spec(data, reading)
        if spec.kind == "features":
            raise UsageError(f"{data} holds features already.", hint="Name pictures.")
        if unlabelled and spec.kind != "folder":
            raise DataError(
                f"{data} is no folder.", hint="--unlabelled takes a folder of pictures."
            )
        from clip_adapter.backbones.names import files_of

        if (ending := out.suffix.lower()) not in WRITABLE:
            raise unknown_name(f"ending of --out {out}:", ending, WRITABLE)
        check_file(out, inputs=[spec.path, *files_of(reading.backbone or "")])
        o.check_backbone(reading)
        from clip_adapter.features.files import write_features

        start = time.perf_counter()
        sets, text, meta, skipped = _embedded(spec, split, reading, unlabelled)
        write_features(out, sets, text, meta)
        seconds = time.perf_counter() - start
        first, learnt = next(iter(sets.values())), "train" if "train" in sets else next(iter(sets))
        following = ("predict", "CLASSIFIER") if unlabelled else ("fit",)
        skips = f"Skipped: {counted(len(skipped), 'picture')} that could not be read."
        output.show(
            *(
                f"{out}#{n}: {counted(len(s), 'picture')}, {counted(s.views, 'view')}"
                for n, s in sets.items()
            ),
            f"{len(first.class_names)} classes, features of size {first.dim} by "
            f"{meta['backbone']}, {seconds:.1f} s.",
            *([skips] if skipped else []),
            f"Next: {command(*following, f'{out}#{learnt}')}",
        )
        output.result(
            {
                "out": str(out),
                "sets": {name: len(one) for name, one in sets.items()},
                "classes": len(first.class_names),
                "dim": first.dim,
                "views": reading.views,
                "text": text is not None,
                "seconds": round(seconds, 3),
                "skipped": [asdict(bad) for bad in skipped],
                **meta,
            }
        )


def _embedded(
    spec: DataSpec, split: list[str] | None, reading: SourceOptions, unlabelled: bool
) -> Embedded:
    from clip_adapter.cli.predictions import pictures
    from clip_adapter.datasets.dataset import UNSPLIT, Dataset, Sample
    from clip_adapter.sources import PictureSource

    data = None
    if unlabelled:
        paths = [record["path"] for record in pictures(str(spec.path), recursive=True)]
        data = Dataset(spec.text, [], {UNSPLIT: [Sample(one, -1, Path(one)) for one in paths]}, [])
    source = PictureSource(spec, reading, data)
    sets, skipped = {}, []
    for name in [UNSPLIT] if unlabelled else split or source.splits():
        # Random views are for learning; what is tested is seen plainly.
        views = reading.views if name not in ("val", "test") else 1
        sets[name], bad = source.features(name, None, views)
        skipped += bad
    meta = {**source.made_by(), "logit_scale": source.logit_scale, "templates": None}
    if unlabelled:
        return sets, None, meta, skipped
    meta["templates"] = json_format.dumps(source.templates, ensure_ascii=False)
    return sets, source.text_weights(), meta, skipped
