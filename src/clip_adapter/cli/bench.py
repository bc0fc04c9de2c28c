"""``clip-adapter bench``: the paper's tables and figures, run and written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import Output, command, table
from clip_adapter.errors import DataError
from clip_adapter.options import SourceOptions
from clip_adapter.wording import counted, shortened, some_of

if TYPE_CHECKING:
    from clip_adapter.bench.benchmark import Outcome
    from clip_adapter.bench.results import Results

DEFAULT_OUT = "bench-output"
SHOWN_FAILURES = 10

Profile = Literal["paper", "demo", "features", "mine"]
Recipes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE]...",
        help="What to run, as 'clip-adapter bench ls' names it, or the path of a .toml file.",
        show_default="all",
    ),
]
ProfileOption = Annotated[
    Profile | None,
    typer.Option(
        help="On which data: the real sets (paper), the drawn ones of the package, offline (demo), "
        "ready-made features (features), or your own as the recipe or --dataset names it (mine).",
        show_default="paper; features where --features is given; mine where all data is yours",
    ),
]
Features = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A folder of feature files (.safetensors, .npz, .parquet), each with sets "
        "train_{K}shot (or train) and test.",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The folder of the paper's data sets; 'clip-adapter data get' fills it."
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "--output", metavar="DIR", help="Where results, tables and figures are written."
    ),
]
Dataset = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Only this data set. May be given several times."),
]
BackboneOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="This backbone instead. May be given several times."),
]
Shots = Annotated[
    list[int] | None, typer.Option(metavar="K", help="Only K shots. May be given several times.")
]
Seed = Annotated[list[int] | None, typer.Option(help="Only this seed. May be given several times.")]
Protocol = Annotated[
    Literal["ours", "paper"] | None,
    typer.Option(
        help="How hyper-parameters are chosen: on the shots alone (ours), or the best on the test "
        "set, as the paper reports it (paper). Every row made so says it.",
        show_default="ours",
    ),
]

bench = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@bench.callback()
def about() -> None:
    """Reproduce the tables and figures of the paper, and compare every method.

    Begin with **clip-adapter bench run --profile demo**: all of them, offline, in minutes.
    """


@bench.command("run")
@o.with_options
def run(
    recipes: Recipes = None,
    *,
    profile: ProfileOption = None,
    features: Features = None,
    root: Root = None,
    out: Out = Path(DEFAULT_OUT),
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes side by side.", show_default="one for each core"),
    ] = None,
    dataset: Dataset = None,
    backbone: BackboneOption = None,
    shots: Shots = None,
    seed: Seed = None,
    protocol: Protocol = None,
    again: Annotated[
        bool, typer.Option("--again", help="Make the results that are there once more.")
    ] = False,
    get: Annotated[
        bool, typer.Option("--get", help="Download the data sets that are missing first.")
    ] = False,
    reading: Annotated[SourceOptions, o.Only(("device", "dtype", "cache"))],
    json: o.Json = False,
) -> None:
    """Run recipes, and write their tables and figures.

    What has a result is not run again, and what was interrupted goes on. A run that fails is told,
    and the others go on.

    **Examples**

        clip-adapter bench run --profile demo
        clip-adapter bench run figure3 --features features/
        clip-adapter bench run table5 --root data/ --get
    """
    with Output(
        json,
        "Runs that are done are kept: the same command goes on, and "
        f"'{command('bench', 'tables', '--out', out)}' shows what there is.",
    ) as output:
        from clip_adapter.bench.benchmark import run_bench
        from clip_adapter.bench.data import Environment
        from clip_adapter.bench.page import check_page
        from clip_adapter.bench.plan import get_missing, load_plans, usual_profile
        from clip_adapter.bench.recipe import recipe_names

        names = recipes or recipe_names()
        environment = Environment(
            out=str(out),
            root=root and str(root.expanduser()),
            features=features and str(features.expanduser()),
            cache=reading.cache and str(reading.cache),
            device=reading.device,
            dtype="float32" if reading.dtype == "auto" else reading.dtype,
        )
        overrides: dict[str, Any] = {
            "datasets": dataset,
            "backbones": backbone,
            "shots": shots,
            "seeds": seed,
            "protocol": protocol,
        }
        chosen = profile or (
            "features" if features is not None else usual_profile(names, overrides)
        )
        if get:
            get_missing(names, chosen, environment.root, overrides)
        load_plans(out)  # a damaged one ends the command before the work, not after it
        check_page(out)
        outcome = run_bench(
            names,
            profile=chosen,
            environment=environment,
            overrides=overrides,
            jobs=jobs,
            again=again,
        )
        _say_outcome(outcome, output, chosen)
        left_out = [str(out) for plan in outcome.plans for out in plan.left_out]
        _write_tables(
            outcome.results,
            out,
            output,
            done=outcome.done,
            present=outcome.present,
            failed=outcome.failed,
            missing=outcome.missing,
            left_out=left_out,
        )
        if outcome.failed or outcome.missing:
            raise typer.Exit(1)


@bench.command("tables")
def tables(out: Out = Path(DEFAULT_OUT), json: o.Json = False) -> None:
    """Write tables and figures anew from the results that are there; nothing is run.

    **Examples**

        clip-adapter bench tables --out bench-output
    """
    with Output(json) as output:
        from clip_adapter.bench.results import FOLDER, Results

        results = Results(out / FOLDER)
        _write_tables(results, out, output)
        if results.damaged:
            raise typer.Exit(1)


def _write_tables(results: Results, out: Path, output: Output, **facts: Any) -> None:
    """Write tables and figures from the plans below ``out``, and say where; JSON has ``facts``."""
    from clip_adapter.bench.page import TABLES, write_page
    from clip_adapter.bench.plan import load_plans

    plans = load_plans(out)
    if not plans:
        raise DataError(
            f"{out} holds no benchmark.",
            hint=f"Run one: {command('bench', 'run', '--profile', 'demo', '--out', out)}",
        )
    files = write_page(plans, results, out)
    output.show(f"Tables:  {out / TABLES}")
    output.result({**facts, "tables": str(out / TABLES), "files": [str(path) for path in files]})


@bench.command("ls")
def ls(json: o.Json = False) -> None:
    """List the recipes: which table or figure each one makes.

    **Examples**

        clip-adapter bench ls
    """
    with Output(json) as output:
        from clip_adapter.bench.recipe import load_recipe, recipe_names

        loaded = map(load_recipe, recipe_names())
        rows = [{"name": r.name, "source": r.source, "title": r.title} for r in loaded]
        output.result(rows)
        cells = [(row["name"], row["source"] or "-", row["title"]) for row in rows]
        output.show(table(("recipe", "in the paper", "what it shows"), cells))


@bench.command("effort")
def effort(recipes: Recipes = None, json: o.Json = False) -> None:
    """Say what recipes take on the real sets: disk, pictures and runs. Nothing is run.

    **Examples**

        clip-adapter bench effort
        clip-adapter bench effort table5 table6
    """
    with Output(json) as output:
        from clip_adapter.bench.plan import effort as count
        from clip_adapter.bench.recipe import recipe_names

        needed = count(recipes or recipe_names())
        through = [f"{n:,} through {name}" for name, n in sorted(needed["pictures"].items())]
        output.show(
            f"Disk:      {needed['download'] / 1e9:.0f} GB of archives, about as much when they "
            f"are unpacked; besides {', '.join(needed['by_hand'])}, by hand or of unknown size.",
            f"Pictures:  {', '.join(through)}; each once, then its features are kept.",
            f"Runs:      {needed['runs']:,}.",
        )
        output.result(needed)


def _say_outcome(outcome: Outcome, output: Output, profile: str) -> None:
    """Say how many runs were done, failed, or were left out, and why."""
    every = outcome.done + outcome.present + len(outcome.failed)
    if outcome.done == 0 and not outcome.failed and every:
        output.show(f"All {every} runs have a result: nothing was run.")
    else:
        output.show(f"{counted(outcome.done, 'run')} done, {outcome.present} were there already.")
    rows = Counter(run.key for plan in outcome.plans for *_, run in plan.planned())
    if shared := sum(number > 1 for number in rows.values()):
        whole = sum(rows.values()) - len(rows) + shared
        output.show(f"{counted(shared, 'run')} served {whole} rows: what is the same is run once.")
    if outcome.failed:
        number = counted(len(outcome.failed), "run")
        output.say(f"{number} failed; the same command tries them again:")
        reasons = Counter(outcome.failed.values()).most_common()
        titles = {reason: title for title, reason in outcome.failed.items()}
        for reason, count in reasons[:SHOWN_FAILURES]:
            output.say(f"  {counted(count, 'run')}, such as {titles[reason]}: {reason}")
    for name, reason in outcome.missing.items():
        output.say(f"The data set {name} cannot be read, and its runs are left out: {reason}")
    left = list(dict.fromkeys(str(out) for plan in outcome.plans for out in plan.left_out))
    if left:
        output.say(f"Left out: {some_of(map(shortened, left), 6)}. The tables say all.")
    if outcome.missing and profile == "paper":
        some = next(iter(outcome.missing))
        output.say(f"Next: {command('data', 'get', some, '--root', 'DIR')}")
