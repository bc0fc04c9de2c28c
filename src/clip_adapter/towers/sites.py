"""Where something can be put into a visual tower of open_clip: its blocks, its stages, its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import nn

from clip_adapter.errors import BackboneError, UsageError

STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Site:
    """A point of a tower's forward pass.

    Attributes:
        module: what runs there.
        before: on its first input instead of its output.
        channels_first: the tensor there is (B, channels, H, W); else its last dimension counts.
        dim: channels of the tensor there, or None where the tower does not tell.
    """

    module: nn.Module
    before: bool = False
    channels_first: bool = False
    dim: int | None = None

    def attach(self, adapter: nn.Module) -> None:
        """Send the tensor there through ``adapter``, (..., dim) -> (..., dim), for good."""
        hook = partial(_through, adapter, self.channels_first)
        if self.before:
            self.module.register_forward_pre_hook(hook)
        else:
            self.module.register_forward_hook(hook)


def _through(
    adapter: nn.Module, channels_first: bool, module: nn.Module, inputs: Any, output: Any = None
) -> Any:
    """The hook: the output, or of a pre-hook the inputs, with the first tensor changed."""
    whole = inputs if output is None else output
    x, *others = whole if isinstance(whole, tuple) else (whole,)
    x = adapter(x.movedim(1, -1)).movedim(-1, 1).contiguous() if channels_first else adapter(x)
    return (x, *others) if isinstance(whole, tuple) else x


def sites(visual: nn.Module) -> list[Site]:
    """The sites of ``visual`` by number; the last one is its end, the output feature (B, D).

    A transformer of n blocks: 0 is on the tokens before block 1, i is after block i, n is the end
    (Gao et al., Table 2, where n = 12). A ResNet: 0 is after the stem, 1 to 4 after the stages, 5
    the end. Other towers have their end alone.
    """
    inner: list[Site] = []
    if blocks := blocks_of(visual):
        width = width_of(visual)
        inner = [
            Site(blocks[0], before=True, dim=width),
            *(Site(block, dim=width) for block in blocks[:-1]),
        ]
    elif all(hasattr(visual, name) for name in (*STAGES, "attnpool", "avgpool")):
        tower = cast("Any", visual)
        # The last convolutions, of the stem and of the stages, tell the channels.
        stages = [getattr(tower, name) for name in STAGES]
        ends = [(tower.avgpool, tower.conv3), *((stage, stage[-1].conv3) for stage in stages)]
        inner = [Site(m, channels_first=True, dim=int(c.out_channels)) for m, c in ends]
    return [*inner, Site(visual, dim=getattr(visual, "output_dim", None))]


def blocks_of(visual: nn.Module) -> list[nn.Module]:
    """The transformer blocks of ``visual``, in order; none where it is no vision transformer."""
    return list(getattr(getattr(visual, "transformer", None), "resblocks", ()))


def width_of(visual: nn.Module) -> int:
    """W, the size of the tokens of a vision transformer."""
    return int(cast("Any", visual).transformer.width)


def transformer_blocks(visual: nn.Module, what: str) -> list[nn.Module]:
    """The transformer blocks of ``visual``, for ``what`` is put into them.

    Raises:
        BackboneError: the tower is no vision transformer of open_clip.
    """
    if blocks := blocks_of(visual):
        return blocks
    raise BackboneError(
        f"{what} goes into the blocks of a vision transformer, and this visual tower "
        f"({type(visual).__name__}) has none.",
        allowed="vision transformers of open_clip, such as ViT-B-32/openai or ViT-B-16/openai",
        hint="Take one of them, or clip-adapter-inside, which also fits ResNets.",
    )


def numbers(
    option: str, given: int | str, allowed: Sequence[int], words: Mapping[str, Sequence[int]]
) -> list[int]:
    """The numbers that the value of an option stands for, sorted, each once.

    Args:
        option: its name.
        given: a number, a word, or several with commas between them: 2, "all", "0,6,end".
        allowed: the numbers that there are.
        words: what each word stands for.

    Raises:
        UsageError: anything else; the allowed numbers are named.
    """
    meanings = {str(number): [number] for number in allowed} | dict(words)
    try:
        return sorted({n for part in str(given).split(",") for n in meanings[part.strip()]})
    except KeyError:
        raise UsageError(
            f"{option} = {given!r}.",
            allowed=f"{', '.join(words)}, or numbers of {', '.join(map(str, allowed))} with "
            "commas between them",
        ) from None
