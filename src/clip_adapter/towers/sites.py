"""Where something can be put into a visual tower of open_clip: its blocks, its stages, its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        hook = _Through(adapter, self.channels_first)
        if self.before:
            self.module.register_forward_pre_hook(hook)
        else:
            self.module.register_forward_hook(hook)


@dataclass(frozen=True)
class _Through:
    """A hook that sends a tensor through ``adapter``: an object, not a closure, so it pickles."""

    adapter: nn.Module
    channels_first: bool

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> Any:
        """The output, or for a pre-hook the inputs, with the first tensor changed."""
        changed = inputs if output is None else output
        x, *others = changed if isinstance(changed, tuple) else (changed,)
        if self.channels_first:
            x = self.adapter(x.movedim(1, -1)).movedim(-1, 1).contiguous()
        else:
            x = self.adapter(x)
        return (x, *others) if isinstance(changed, tuple) else x


def sites(visual: nn.Module) -> list[Site]:
    """The sites of ``visual`` by number; the last one is its end, the output feature (B, D).

    A transformer of n blocks: 0 is on the tokens before block 1, i is after block i, n is the end
    (Gao et al., Table 2, where n = 12). A ResNet: 0 is after the stem, 1 to 4 after the stages, 5
    the end. Other towers have their end alone.
    """
    end = Site(visual, dim=getattr(visual, "output_dim", None))
    if blocks := blocks_of(visual):
        width = width_of(visual)
        inner = [Site(block, dim=width) for block in blocks[:-1]]
        return [Site(blocks[0], before=True, dim=width), *inner, end]
    if all(hasattr(visual, name) for name in (*STAGES, "attnpool", "avgpool")):
        tower: Any = visual
        stages = [getattr(tower, name) for name in STAGES]
        # The last convolutions, of the stem and of the stages, tell the channels.
        ends = [(tower.avgpool, tower.conv3), *((stage, stage[-1].conv3) for stage in stages)]
        inner = [Site(m, channels_first=True, dim=int(c.out_channels)) for m, c in ends]
        return [*inner, end]
    return [end]


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
    blocks = blocks_of(visual)
    if not blocks:
        raise BackboneError(
            f"{what} goes into the blocks of a vision transformer, and this visual tower "
            f"({type(visual).__name__}) has none.",
            allowed="vision transformers of open_clip, such as ViT-B-32/openai or ViT-B-16/openai",
            hint="Take one of them, or clip-adapter-inside, which also fits ResNets.",
        )
    return blocks


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
    chosen: set[int] = set()
    for part in str(given).split(","):
        word = part.strip()
        if word in words:
            chosen.update(words[word])
        elif word.isdecimal() and int(word) in allowed:
            chosen.add(int(word))
        else:
            raise UsageError(
                f"{option} = {given!r}.",
                allowed=f"{', '.join(words)}, or numbers of {', '.join(map(str, allowed))} with "
                "commas between them",
            )
    return sorted(chosen)
