"""``clip-adapter demo``: see it work, offline, on pictures that the package draws itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import Output, command, table
from clip_adapter.options import SourceOptions

if TYPE_CHECKING:
    from rich.table import Table

    from clip_adapter.demo.run import Demo


@o.with_options
def demo(
    *,
    out: Annotated[
        Path,
        typer.Option("--out", "--output", metavar="DIR", help="Where everything is written."),
    ] = Path("demo-output"),
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="How often each number is measured, on other draws.", show_default="3"
        ),
    ] = None,
    shots: Annotated[
        list[int] | None,
        typer.Option(
            metavar="K",
            help="Labelled pictures per class. May be given several times.",
            show_default="1, 4 and 16",
        ),
    ] = None,
    reading: Annotated[SourceOptions, o.Only(("cache",))],
    json: o.Json = False,
) -> None:
    """Watch a few examples make CLIP better, offline, in a few minutes.

    Pictures of coloured, textured shapes are drawn, badly lit and blurred, in 16 classes. A small
    CLIP that comes with this package knows such shapes from tidy drawings only. Every method
    learns from 1, 4 and 16 pictures per class and is tested on the same 480 pictures. The
    visual adapter with the most examples is then saved, and tried on pictures without a label.

    **Examples**

        clip-adapter demo
        clip-adapter demo --shots 2 --shots 8 --seeds 1 --out /tmp/demo
    """
    with Output(json) as output:
        from clip_adapter.demo import run as job

        output.say("Drawing the pictures, looking at each once, then training every method.")
        result = job.run_demo(
            out, seeds=seeds or job.SEEDS, shots=shots or job.SHOTS, cache=reading.cache
        )
        output.show(accuracies(result), "", predictions(result), "", *closing(result))
        output.result(asdict(result))


def accuracies(result: Demo) -> Table:
    """Methods by shots."""
    shots, runs = sorted({row.shots for row in result.rows}), len(result.rows[0].runs)
    cells = {
        (row.method, row.shots): f"{row.mean:.1f}{f' ± {row.sd:.1f}' * (runs > 1)}"
        for row in result.rows
    }
    return table(
        ("labelled pictures per class", *map(str, shots)),
        [(name, *(cells[name, k] for k in shots)) for name in dict.fromkeys(n for n, _ in cells)],
        right=[*map(str, shots)],
        title=f"Right answers (%) on {result.test_pictures} test pictures of {result.classes} "
        f"classes, {f'mean ± standard deviation of {runs} draws' if runs > 1 else 'one draw'}",
    )


def predictions(result: Demo) -> Table:
    """Answers for the pictures without labels."""
    rows = [(one["path"], one["label"], f"{one['probability']:.2f}") for one in result.predictions]
    return table(
        ("picture", "answer", "probability"),
        rows,
        right=("probability",),
        title="Pictures that nobody labelled",
    )


def closing(result: Demo) -> list[str]:
    """What was written, and what to do next."""
    files = result.files
    return [
        f"Pictures:    {files['pictures']}",
        f"Classifier:  {files['classifier']}",
        f"Figures:     {files['accuracy_by_shots']}, {files['confusion']}",
        f"Table:       {files['table']}, {files['csv']}",
        f"Seconds:     {result.seconds:.0f}",
        f"Next: {command('fit', files['pictures'], '--backbone', 'demo', '--shots', 8)}",
        f"      {command('fit', 'YOUR_PICTURES')}   (one folder per class)",
    ]
