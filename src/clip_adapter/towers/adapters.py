"""Adapters between and inside the blocks of a visual tower.

ResidualInside:  x' = a A(x) + (1 - a) x                        after chosen blocks or stages
Houlsby:         y' = y + GELU(y W1 + b1) W2 + b2               y = Attn(LN x), and y = MLP(LN x)
Parallel:        y' = y + s (ReLU(z W1 + b1) W2 + b2)           y = MLP(z), z = LN x

Sources: Gao et al. 2024 (arXiv 2110.04544), Table 2; Houlsby et al. 2019 (arXiv 1902.00751),
section 2.1 and figure 2; He et al. 2022 (arXiv 2110.04366), section 3.3.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_adapter.errors import BackboneError
from clip_adapter.nn import Activation, ResidualAdapter
from clip_adapter.nn.bottleneck import linear_init
from clip_adapter.nn.saved import whole
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
        self.adapters = nn.ModuleDict({str(site): a for site, a in sorted(adapters.items())})

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
        numbered = dict(enumerate(sites(visual)))
        for name, module in self.adapters.items():
            adapter, site = cast("ResidualAdapter", module), numbered.get(int(name))
            if site is None or site.dim not in (None, adapter.dim):
                raise BackboneError(
                    f"An adapter of dimension {adapter.dim} at place {name} of the visual tower "
                    f"does not fit {type(visual).__name__}.",
                    allowed=f"places 0 to {len(numbered) - 1}, each with its own dimension",
                )
            site.attach(adapter)

    def config(self) -> Config:  # noqa: D102
        return {
            "adapters": {
                name: cast("ResidualAdapter", a).config() for name, a in self.adapters.items()
            }
        }

    @classmethod
    def from_config(cls, config: Config) -> ResidualInside:  # noqa: D102
        given = config["adapters"]
        whole(len(given), "the number of adapters", highest=MAX_BLOCKS)
        return cls(
            {
                whole(int(name), "a place", 0, MAX_BLOCKS): ResidualAdapter.from_config(adapter)
                for name, adapter in given.items()
            }
        )


class Branch(nn.Module):
    """``scale * (activation(x W1 + b1) W2 + b2)`` for x (..., W): 2WH + H + W parameters.

    W1 starts as a linear layer of PyTorch does, everything else at zero, so that the branch says
    zero at first. He et al. start so; Houlsby et al. start both matrices within 1e-3 of zero,
    which only says nearly nothing.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Literal["gelu", "relu"],
        scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.scale = activation, scale
        self.down = nn.Parameter(linear_init((width, hidden), width, generator))
        self.down_bias = nn.Parameter(torch.zeros(hidden))
        self.up = nn.Parameter(torch.zeros(hidden, width))
        self.up_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        inner = x @ self.down + self.down_bias
        inner = F.gelu(inner) if self.activation == "gelu" else F.relu(inner)
        return self.scale * (inner @ self.up + self.up_bias)

    def sequential(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """A hook: adds what it makes of the output of ``module``."""
        return output + self(output)

    def parallel(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A hook: adds what it makes of the input of ``module``."""
        return output + self(inputs[0])


class _InBlocks(TowerAdapter):
    """Branches in chosen blocks, which are counted from 1."""

    def __init__(
        self,
        blocks: Sequence[int],
        width: int,
        hidden: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.width, self.hidden = width, hidden
        self.branches = nn.ModuleDict({str(b): self.make(generator) for b in sorted(blocks)})

    @abstractmethod
    def make(self, generator: torch.Generator | None) -> nn.Module:
        """What one block gets."""

    def chosen(self, visual: nn.Module) -> list[tuple[Any, Any]]:
        """(block, its branches) of each chosen block.

        Raises:
            BackboneError: the tower has no such block.
        """
        every, width = transformer_blocks(visual, f"The {self.kind} adapter"), width_of(visual)
        last = max(map(int, self.branches))
        if last > len(every) or width != self.width:
            raise BackboneError(
                f"Adapters of width {self.width} up to block {last} do not fit a visual tower of "
                f"{len(every)} blocks of width {width}.",
                hint="Take the backbone that they were made for.",
            )
        return [(every[int(name) - 1], branches) for name, branches in self.branches.items()]

    def config(self) -> Config:
        return {
            "blocks": [int(name) for name in self.branches],
            "width": self.width,
            "hidden": self.hidden,
        }

    @classmethod
    def from_config(cls, config: Config) -> Any:
        given = config["blocks"]
        whole(len(given), "the number of blocks with adapters", highest=MAX_BLOCKS)
        blocks = [whole(block, "a block", highest=MAX_BLOCKS) for block in given]
        if len(set(blocks)) < len(blocks):
            raise ValueError("a block has two adapters")
        width = whole(config["width"], "the width of the blocks")
        return cls(blocks, width, whole(config["hidden"], "the bottleneck of an adapter"))


@register_tower_adapter
class Houlsby(_InBlocks):
    """Two bottlenecks in each block, after the attention and after the MLP.

    Each changes the sub-layer's output before the block's own sum, and has a skip of its own. The
    biases and the GELU are those of the authors' code (google-research/adapter-bert). The paper
    also trains the layer norms, which are left as they are here: the comparison is of adapters.

    Args:
        blocks: their numbers, from 1.
        width: W of the tower.
        hidden: H.
        generator: of the random start.
    """

    kind = "houlsby"

    def make(self, generator: torch.Generator | None) -> nn.Module:  # noqa: D102
        return nn.ModuleList(
            Branch(self.width, self.hidden, "gelu", generator=generator) for _ in range(2)
        )

    def attach(self, visual: nn.Module) -> None:  # noqa: D102
        for block, (attention, mlp) in self.chosen(visual):
            # open_clip's blocks are x + ls_1(attn(ln_1 x)), then x + ls_2(mlp(ln_2 x)).
            block.ls_1.register_forward_hook(attention.sequential)
            block.ls_2.register_forward_hook(mlp.sequential)


@register_tower_adapter
class Parallel(_InBlocks):
    """One bottleneck beside the MLP of each block, on the same input.

    Args:
        blocks: their numbers, from 1.
        width: W of the tower.
        hidden: H.
        generator: of the random start.
    """

    kind = "parallel"
    # s of the paper's "scaled parallel adapter".
    SCALE = 4.0

    def make(self, generator: torch.Generator | None) -> nn.Module:  # noqa: D102
        return Branch(self.width, self.hidden, "relu", self.SCALE, generator)

    def attach(self, visual: nn.Module) -> None:  # noqa: D102
        for block, branch in self.chosen(visual):
            block.mlp.register_forward_hook(branch.parallel)
