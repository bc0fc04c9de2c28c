"""Adapters between and inside the blocks of a visual tower.

ResidualInside:  x' = a A(x) + (1 - a) x                        after chosen blocks or stages
Houlsby:         y' = y + GELU(y W1 + b1) W2 + b2               y = Attn(LN x), and y = MLP(LN x)
Parallel:        y' = y + s (ReLU(z W1 + b1) W2 + b2)           y = MLP(z), z = LN x

Sources: Gao et al. 2024 (arXiv 2110.04544), Table 2; Houlsby et al. 2019 (arXiv 1902.00751),
section 2.1 and figure 2; He et al. 2022 (arXiv 2110.04366), section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_adapter.errors import BackboneError
from clip_adapter.nn import Activation, ResidualAdapter, linear_init
from clip_adapter.towers.base import MAX_BLOCKS, Config, TowerAdapter, register_tower_adapter
from clip_adapter.towers.sites import sites, transformer_blocks, width_of


@register_tower_adapter
class ResidualInside(TowerAdapter):
    """CLIP-Adapter's residual adapter at any sites of a tower; see :func:`sites.sites`.

    Args:
        adapters: an adapter for each site, by its number.
    """

    kind = "residual-inside"

    def __init__(self, adapters: Mapping[int, ResidualAdapter]) -> None:
        super().__init__()
        self.adapters: Any = nn.ModuleDict({str(site): a for site, a in sorted(adapters.items())})

    @classmethod
    def build(
        cls,
        dims: Mapping[int, int],
        hidden: int,
        activation: Activation = "official",
        ratio: float = 0.2,
        generator: torch.Generator | None = None,
    ) -> ResidualInside:
        """Untrained adapters.

        Args:
            dims: channels at each site, by its number.
            hidden: H; 512 in the paper's Table 2.
            activation: "official" ends the bottleneck in a second ReLU, "paper" does not.
            ratio: a, the share of the new feature.
            generator: of the random start.
        """
        return cls(
            {
                site: ResidualAdapter.build(dim, hidden, activation, ratio, generator=generator)
                for site, dim in sorted(dims.items())
            }
        )

    def attach(self, visual: nn.Module) -> None:  # noqa: D102
        every = dict(enumerate(sites(visual)))
        for name, adapter in self.adapters.items():
            site = every.get(int(name))
            if site is None or site.dim not in (None, adapter.dim):
                raise BackboneError(
                    f"An adapter of dimension {adapter.dim} at place {name} of the visual tower "
                    f"does not fit {type(visual).__name__}.",
                    allowed=f"places 0 to {len(every) - 1}, each with its own dimension",
                )
            site.attach(adapter)

    def config(self) -> Config:  # noqa: D102
        return {"adapters": {name: a.config() for name, a in self.adapters.items()}}

    @classmethod
    def from_config(cls, config: Config) -> ResidualInside:  # noqa: D102
        adapters = {
            int(n): ResidualAdapter.from_config(a) for n, a in dict(config["adapters"]).items()
        }
        if not adapters or not all(0 <= place <= MAX_BLOCKS for place in adapters):
            raise ValueError(f"the places of the adapters are not in 0 to {MAX_BLOCKS}")
        return cls(adapters)


class Branch(nn.Module):
    """``scale * (activation(x W1 + b1) W2 + b2)`` for x (..., W): 2WH + H + W parameters.

    W1 starts as a linear layer of PyTorch does, everything else at zero, so that the branch says
    zero at first. He et al. start so; Houlsby et al. start both matrices within 1e-3 of zero,
    which only says nearly nothing.

    Args:
        width: W.
        hidden: H.
        parallel: beside a module, on its input, with ReLU and He et al.'s scale of 4; else behind
            it, on its output, with GELU and a scale of 1.
        generator: of the random start.
    """

    def __init__(
        self, width: int, hidden: int, parallel: bool, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.parallel = parallel
        self.down = nn.Parameter(linear_init((width, hidden), width, generator))
        self.down_bias = nn.Parameter(torch.zeros(hidden))
        self.up = nn.Parameter(torch.zeros(hidden, width))
        self.up_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        activation, scale = (F.relu, 4.0) if self.parallel else (F.gelu, 1.0)
        return scale * (activation(x @ self.down + self.down_bias) @ self.up + self.up_bias)

    def add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A hook: adds to the output of ``module``."""
        return output + self(inputs[0] if self.parallel else output)


class InBlocks(TowerAdapter):
    """Branches in chosen blocks, which are counted from 1.

    Args:
        blocks: their numbers, from 1.
        width: W of the tower.
        hidden: H.
        generator: of the random start.

    Class attributes:
        places: the modules of a block that get a branch each.
        parallel: see :class:`Branch`.
    """

    places: ClassVar[tuple[str, ...]]
    parallel: ClassVar[bool]

    def __init__(
        self,
        blocks: Sequence[int],
        width: int,
        hidden: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(blocks=sorted(blocks), width=width, hidden=hidden)
        if not blocks or len(blocks) > len(set(blocks) & set(range(1, MAX_BLOCKS + 1))):
            raise ValueError(f"the blocks are no distinct numbers of 1 to {MAX_BLOCKS}")
        self.branches = nn.ModuleDict()
        for block in sorted(blocks):
            every = [Branch(width, hidden, self.parallel, generator) for _ in self.places]
            # One alone is saved without a number of its own.
            self.branches[str(block)] = nn.ModuleList(every) if len(every) > 1 else every[0]

    def attach(self, visual: nn.Module) -> None:  # noqa: D102
        blocks, width = transformer_blocks(visual, f"The {self.kind} adapter"), width_of(visual)
        last, own_width = self.settings["blocks"][-1], self.settings["width"]
        if last > len(blocks) or width != own_width:
            raise BackboneError(
                f"Adapters of width {own_width} up to block {last} do not fit a visual tower of "
                f"{len(blocks)} blocks of width {width}.",
                hint="Take the backbone that they were made for.",
            )
        for name, own in self.branches.items():
            every = own if isinstance(own, nn.ModuleList) else [own]
            for place, branch in zip(self.places, every, strict=True):
                module = getattr(blocks[int(name) - 1], place)
                module.register_forward_hook(cast("Branch", branch).add)


@register_tower_adapter
class Houlsby(InBlocks):
    """Two bottlenecks in each block, after the attention and after the MLP.

    Each changes the sub-layer's output before the block's own sum, and has a skip of its own. The
    biases and the GELU are those of the authors' code (google-research/adapter-bert). The paper
    also trains the layer norms, which are left as they are here: the comparison is of adapters.
    """

    kind = "houlsby"
    # open_clip's blocks are x + ls_1(attn(ln_1 x)), then x + ls_2(mlp(ln_2 x)).
    places = ("ls_1", "ls_2")
    parallel = False


@register_tower_adapter
class Parallel(InBlocks):
    """One bottleneck beside the MLP of each block, on the same input."""

    kind = "parallel"
    places = ("mlp",)
    parallel = True
