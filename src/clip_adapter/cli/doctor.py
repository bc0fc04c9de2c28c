"""``clip-adapter doctor``: is all in place here?"""

from __future__ import annotations

from typing import Annotated

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import SCHEMA, Output, table
from clip_adapter.errors import ClipAdapterError
from clip_adapter.hub import size_of
from clip_adapter.known_names import check_device
from clip_adapter.options import SourceOptions


@o.with_options
def doctor(
    *,
    reading: Annotated[SourceOptions, o.Only(("device",))],
    json: o.Json = False,
) -> None:
    """Check that the installation works, and that real weights give the numbers they should.

    It shows versions, device, caches and free disk, and lets the small demo CLIP compute what it
    is known to compute. With a network it fetches the weights of `ViT-B-32/openai` (605 MB, once)
    and compares them with the example that OpenAI published; without one it says so, and checks
    the rest. The exit code is 0 where all is well and 1 where something is off.

    **Examples**

        clip-adapter doctor
        clip-adapter doctor --device cpu --json
    """
    with Output(json) as output:
        check_device(reading.device)
        from clip_adapter.doctor import examine, summary

        health = examine(reading.device)
        caches = {"Features": health.cache, "Weights": health.hub_cache}
        output.show(
            ", ".join(f"{name} {version}" for name, version in health.versions.items()),
            *(f"{n}: {c['folder']}, {size_of(c['bytes'])}" for n, c in caches.items()),
            table(
                ("what", "how it is", "details"),
                [(check.name, check.state, check.detail) for check in health.checks],
            ),
            summary(health),
        )
        output.result({"schema": SCHEMA, **health.to_dict()})
        if not health.well:
            raise typer.Exit(ClipAdapterError.exit_code)
