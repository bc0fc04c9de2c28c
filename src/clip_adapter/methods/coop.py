"""CoOp: words of the prompt become trained vectors; and CLIP-Adapter on top of such a prompt.

    w_i = g([SOS] [V]1 [V]2 ... [V]M [class i] [.] [EOT])
    logits = logit_scale * normalize(f) @ normalize(W).T                          (coop)

    W' = normalize((normalize(W) + W_hard) / 2)         f' = a A_v(f) + (1 - a) f
    logits = logit_scale * normalize(f') @ W'.T                                   (coop-adapter)

g is the frozen text tower, through which the gradient reaches the context V.

Source: Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022 (arXiv 2109.01134),
section 3.2; recipe and prompt layout of the released code (KaiyangZhou/CoOp). The second is "hard +
soft" of Table 7 of CLIP-Adapter (arXiv 2110.04544), of which that paper says only that it is "the
mixture of hard prompt and learnable soft prompt", used as input of CLIP-Adapter. We read it as an
ensemble, as the row above it is one: the two text features of a class are averaged as CLIP averages
prompts, and the context is trained together with the adapter.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from clip_adapter.backbones.base import Backbone
from clip_adapter.errors import UsageError
from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Head, Method, Sizes, register
from clip_adapter.nn import Activation, ResidualAdapter, normalize
from clip_adapter.nn.prompt import Position, SoftPrompts, common_start, context_tokens, lay_out
from clip_adapter.towers import in_passes
from clip_adapter.training import Schedule, hidden_units, official_schedule, train_on

CONTEXT_LENGTH = 16
# Standard deviation of the random start (CoOp, section 4.1).
SPREAD = 0.02
# A step costs a pass of the text tower over all classes, however few pictures are in it: larger
# batches and AdamW take a fifteenth of the official recipe's time on the demo task (16 shots), to
# no less accuracy. Rate and steps were chosen there, on pictures of the training split that are
# not among the shots (1, 4 and 16 of them, three draws).
FAST_STEPS = 100
FAST = Schedule("adamw", 2e-3, weight_decay=0.0, batch_size=256, steps=FAST_STEPS, warmup=0.1)
# The paper's best on generic data, as in its Tables 6 and 7 (ImageNet).
VISUAL_RATIO = 0.2


class SoftClassifier(nn.Module):
    """Class weights through the text tower, and the visual adapter where there is one.

    Args:
        backbone: its text tower is run, and stays as it is.
        prompts: their context is trained.
        tokens: (C, L), to tell where each prompt ends.
        shared: how many leading embeddings are the same for all classes.

    Attributes:
        hard: (C, D) unit weights to average with, or None.
        adapter: of the image features, or None.
    """

    def __init__(
        self, backbone: Backbone, prompts: SoftPrompts, tokens: Tensor, shared: int = 0
    ) -> None:
        super().__init__()
        self.prompts, self._backbone = prompts, backbone
        self._tokens, self._shared = tokens, shared
        self.hard: Tensor | None = None
        self.adapter: ResidualAdapter | None = None

    def class_weights(self) -> Tensor:
        """(C, D), where the tower is; raw features of the prompts, or unit rows where mixed."""
        encode = functools.partial(self._backbone.encode_prompt_embeddings, shared=self._shared)
        soft = in_passes(encode, self.prompts(), self._tokens)
        if self.hard is None:
            return soft
        return normalize((normalize(soft) + self.hard.to(soft.device)) / 2)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines (..., B, C) of features (..., B, D)."""
        mapped = features if self.adapter is None else self.adapter(features)
        return normalize(mapped) @ normalize(self.class_weights()).T


@register(
    name="coop",
    summary="learns the words of the prompt, as vectors, through the text tower",
    citation="Zhou et al. 2022, arXiv 2109.01134",
    trains="context vectors of the prompt",
    runs_text_tower=True,
)
class CoOp(Method):
    """Context optimisation.

    Attributes:
        context_length: M, trained vectors; with ``context_init`` it is that text's length.
        context_init: words whose embeddings are the start, such as "a photo of a"; None starts
            from N(0, 0.02).
        class_token_position: where the class name stands.
        per_class: each class has a context of its own, instead of one that all share.
        recipe: "fast" (AdamW, 100 steps on larger batches), or "official" (SGD, CoOp's epochs).
        lr: learning rate, instead of the recipe's.
        batch_size: pictures per step, instead of the recipe's.
        epochs: passes over the pictures, instead of the recipe's.
    """

    context_length: Annotated[int, Bounds(least=1)] = CONTEXT_LENGTH
    context_init: str | None = None
    class_token_position: Position = "end"  # noqa: S105 - no secret
    per_class: bool = False
    recipe: Literal["fast", "official"] = "fast"
    lr: Annotated[float | None, Bounds(above=0)] = None
    batch_size: Annotated[int | None, Bounds(least=1)] = None
    epochs: Annotated[int | None, Bounds(least=1)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context_init is not None and self.context_length != CONTEXT_LENGTH:
            raise UsageError(
                f"context_length = {self.context_length} and context_init = "
                f"{self.context_init!r}: the words decide how many vectors there are.",
                hint="Leave one of them away.",
            )

    def parameters(self, sizes: Sizes) -> int | None:
        """M W, or M W C per class; open where the words of ``context_init`` decide M.

        16 x 512 = 8,192 for CLIP's text towers. Table 1 of CLIP-Adapter has 0.02 M, which is
        16 x 1024: D of ResNet-50 in the place of W.
        """
        if self.context_init is not None:
            return None
        return self.context_length * sizes.text_width * (sizes.classes if self.per_class else 1)

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        task.require_text(self.name)
        module, schedule = self.build(task), self._schedule(task)
        # A step runs the text tower over all classes.
        train_on(task, module, [torch.arange(len(task.train))], schedule, work=None)
        with torch.no_grad():
            weights = module.class_weights()
        own = dataclasses.asdict(self) | dataclasses.asdict(schedule)
        return Fitted(
            Head(weights, module.adapter, logit_scale=task.logit_scale),
            hyperparameters={
                **{name: value for name, value in own.items() if value is not None},
                "context_length": module.prompts.context.shape[-2],
            },
            trained_parameters=sum(p.numel() for p in module.parameters()),
        )

    def build(self, task: FewShotTask) -> SoftClassifier:
        """What is trained, before it is.

        Raises:
            UsageError: no backbone, or a prompt that its text tower does not take.
            BackboneError: the text tower takes no token embeddings.
        """
        backbone = task.require_backbone(self.name)
        context = self.context_length if self.context_init is None else self.context_init
        words = context_tokens(backbone.tokenize, context)
        tokens, columns = lay_out(
            backbone.tokenize, task.class_names, words, self.class_token_position
        )
        tokens = backbone.trim_tokens(tokens)
        embedded = backbone.embed_tokens(tokens)
        if self.context_init is None:
            size = (len(words), embedded.shape[-1])
            size = (len(tokens), *size) if self.per_class else size
            start = SPREAD * torch.randn(size, generator=torch.Generator().manual_seed(task.seed))
        else:
            start = embedded[:, columns[0]] if self.per_class else embedded[0, columns[0]]
        prompts = SoftPrompts(embedded, columns.to(embedded.device), start.to(embedded.device))
        shared = 0 if self.per_class else common_start(tokens, columns)
        return SoftClassifier(backbone, prompts, tokens, shared)

    def _schedule(self, task: FewShotTask) -> Schedule:
        official = official_schedule(task.mean_shots, len(task.class_names))
        base = official if self.recipe == "official" else FAST
        batch, length = self.batch_size or base.batch_size, {}
        if self.epochs is not None:
            steps = self.epochs * max(len(task.train) // batch, 1)
            length = {"steps": steps} if base is FAST else {"epochs": self.epochs}
        return dataclasses.replace(base, lr=self.lr or base.lr, batch_size=batch, **length)


@register(
    name="coop-adapter",
    summary="CLIP-Adapter on hard and learnt prompts together",
    citation="Gao et al. 2024, arXiv 2110.04544",
    trains="context vectors of the prompt, image adapter",
)
class CoOpAdapter(CoOp):
    """Hard and soft prompts averaged, with CLIP-Adapter on the image feature; trained together.

    Attributes:
        context_length: M, trained vectors; with ``context_init`` it is that text's length.
        context_init: words whose embeddings are the start; None starts from N(0, 0.02).
        class_token_position: where the class name stands in the soft prompt.
        per_class: each class has a context of its own, instead of one that all share.
        recipe: "fast" (AdamW, 100 steps on larger batches), or "official" (SGD, CoOp's epochs).
        lr: learning rate, instead of the recipe's.
        batch_size: pictures per step, instead of the recipe's.
        epochs: passes over the pictures, instead of the recipe's.
        visual_ratio: a, the share of the new image feature, 0 to 1.
        activation: "official" ends the bottleneck in a second ReLU, "paper" does not.
        reduction: D / H; the paper takes 4 (Table 5).
    """

    visual_ratio: Annotated[float, Bounds(least=0, most=1)] = VISUAL_RATIO
    activation: Activation = "official"
    reduction: Annotated[int, Bounds(least=1)] = 4

    def parameters(self, sizes: Sizes) -> int | None:
        """Those of CoOp and 2 D H."""
        context = super().parameters(sizes)
        return None if context is None else context + 2 * sizes.dim * (sizes.dim // self.reduction)

    def build(self, task: FewShotTask) -> SoftClassifier:  # noqa: D102
        dim, module = task.train.dim, super().build(task)
        module.hard = task.require_text(self.name)
        module.adapter = ResidualAdapter.build(
            dim,
            hidden_units(dim, self.reduction),
            self.activation,
            self.visual_ratio,
            generator=torch.Generator().manual_seed(task.seed),
        ).to(module.prompts.context.device)
        return module
