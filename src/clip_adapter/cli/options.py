"""Arguments and options that several commands share; defaults come from ``SourceOptions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clip_adapter.errors import UsageError
from clip_adapter.options import DEFAULT_BACKBONE, Compute, Dtype, Norm, SourceOptions, Style

DEFAULTS = SourceOptions()
COMPUTE = Compute()
READING, TRAINING, RESULT = "How pictures are read", "How it learns", "Results"
INSIDE = "Methods that train inside CLIP"

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Labelled pictures: a folder with one sub-folder per class; a table (.csv, .tsv, "
        ".parquet) with the columns path and label; hub:NAME for a data set of the Hugging Face "
        "hub; a data set of the paper by its name ('clip-adapter data ls'), with --root; or "
        "features made before, FILE.safetensors#SET.",
    ),
]
SavedClassifier = Annotated[
    str,
    typer.Argument(
        metavar="CLASSIFIER",
        help="The folder that 'clip-adapter fit' wrote, or a repository of the hub (user/name).",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The pretrained CLIP that looks at the pictures. 'demo' is small and needs no "
        "download; 'clip-adapter ls backbones' lists the others.",
        show_default=f"{DEFAULT_BACKBONE} for pictures",
        rich_help_panel=READING,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Where to compute: auto (the fastest that is here), cpu, cuda, cuda:1, mps.",
        rich_help_panel=READING,
    ),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        help="Number format of the backbone. float16 is faster on a GPU.",
        rich_help_panel=READING,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        min=1,
        help="Pictures that go through the backbone at once. Halved by itself when memory runs "
        "out.",
        rich_help_panel=READING,
    ),
]
Prompt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="How a class is described to CLIP, with {} for its name: 'a photo of a {}.' Give it "
        "several times for an average. Names from 'clip-adapter ls templates' work too.",
        show_default="by the data set's name",
        rich_help_panel=READING,
    ),
]
Descriptions = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Sentences on each class, as a language model writes them, in place of the prompt: a "
        "JSON object {name: [sentence, ...]}. With --prompt too, all of them are averaged.",
        rich_help_panel=READING,
    ),
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Better names for the classes than the folder names: a CSV with the columns "
        "folder,name, a JSON object {folder: name}, or a text file with one name per line.",
        rich_help_panel=READING,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The folder that the paths in a table start from, or that holds the data set named.",
        show_default="the table's own",
        rich_help_panel=READING,
    ),
]
Views = Annotated[
    int,
    typer.Option(
        min=1,
        help="How often each training picture is seen, each time cropped and flipped at random. "
        "1 is the plain picture.",
        rich_help_panel=READING,
    ),
]
StyleOption = Annotated[
    Style,
    typer.Option(
        "--style",
        help="How pictures are cut to size: as CLIP does, or as CoOp's published experiments do.",
        rich_help_panel=READING,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where features are kept, so that no picture is embedded twice.",
        show_default="$CLIP_ADAPTER_CACHE, else the user's cache folder",
        rich_help_panel=READING,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Stop at a picture that cannot be read, instead of naming and skipping it.",
        rich_help_panel=READING,
    ),
]
FeatureNorm = Annotated[
    Norm,
    typer.Option(
        help="Whether ready-made features were scaled to length 1 (unit) or not (raw). auto looks.",
        rich_help_panel=READING,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the result as JSON on standard output, and nothing else there.",
        rich_help_panel=RESULT,
    ),
]


def key_values(pairs: list[str] | None) -> dict[str, str]:
    """``["a=1"]`` as ``{"a": "1"}``.

    Raises:
        UsageError: no ``=``, or the same key twice.
    """
    found: dict[str, str] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(
                f"-o {pair}",
                allowed="-o KEY=VALUE, such as -o visual_ratio=0.2",
                hint="'clip-adapter ls methods' lists the options of every method.",
            )
        if key in found:
            raise UsageError(f"-o {key} is given twice.", hint="Give it once.")
        found[key] = value
    return found
