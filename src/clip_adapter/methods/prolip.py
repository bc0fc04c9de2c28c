"""ProLIP: fine-tunes CLIP's last visual projection, held near its start.

    logits = logit_scale * normalize(x P + b) @ normalize(W).T
    loss = cross entropy + (1 / K) |P - P_0|^2

x (trunk) are the features before the projection, P_0 (trunk, D) is CLIP's own; the bias b of a
ResNet stays. K is the number of shots.

Source: Fahes et al., "Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia", 2024 (arXiv
2410.05270), in the form that needs no validation data: penalty 1/K, 300 steps on all shots at once,
a new view of each picture at each step. From the released code: Adam with epsilon 1e-4, a cosine,
and the sum of the squares rather than their mean in the penalty. It compares rates of 1e-5 to 1e-2,
finds them alike under this penalty, and takes 1e-5 in its tables on generalisation; here the same
rates are compared on held-out shots. They cache 300 random views; here as many as the task has
(--views).
"""

from typing import Annotated, Literal

from torch import Tensor

from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Head, Method, Sizes, register
from clip_adapter.nn import Projection
from clip_adapter.towers import TrunkAdapter, projection, trunk_features
from clip_adapter.training import Schedule, choose_and_train, train_on

EPSILON = 1e-4
# The mildest leads; it is also what one shot takes, which leaves nothing to hold out.
RATES = (1e-5, 1e-4, 1e-3, 1e-2)


@register(
    name="prolip",
    summary="CLIP's last visual projection, held near its start",
    citation="Fahes et al. 2024, arXiv 2410.05270",
    trains="the projection of the visual tower",
    reads="images",
)
class ProLIP(Method):
    """Trains the projection on features of the frozen trunk.

    Attributes:
        distance_penalty: weight of |P - P_0|^2, 0 or more, or "auto": 1 over the number of shots.
        lr: learning rate at the start of the cosine, or "auto": cross-validation on the shots.
        batch_size: pictures per step; 0 takes all at once, as published.
        epochs: passes over the shots.
    """

    distance_penalty: Annotated[float | Literal["auto"], Bounds(least=0)] = "auto"
    lr: Annotated[float | Literal["auto"], Bounds(above=0)] = "auto"
    batch_size: Annotated[int, Bounds(least=0)] = 0
    epochs: Annotated[int, Bounds(least=1)] = 300

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        weights, pictures = task.require_text(self.name), task.require_pictures(self.name)
        task.compute.refuse(self.name)
        backbone = task.require_backbone(self.name)
        start = Projection(*projection(backbone))
        # Held-out shots are scored on the plain view, whatever is trained on.
        features, plain = trunk_features(backbone, pictures, task.train.views)
        given, batch = self.distance_penalty, self.batch_size or len(task.train)
        strength = 1 / task.mean_shots if given == "auto" else float(given)

        def train(rows: list[Tensor], rate: float) -> list[Head]:
            schedule = Schedule("adamw", rate, 0.0, batch, epochs=self.epochs, epsilon=EPSILON)
            projections = fit_projections(start, features, task, strength, schedule, rows)
            return [Head(weights, own, logit_scale=task.logit_scale) for own in projections]

        choice, head = choose_and_train(
            "lr", self.lr, RATES, one_shot=RATES[0], task=task, train=train, plain=plain
        )
        return Fitted(
            head,
            hyperparameters={
                "distance_penalty": strength,
                "lr": choice.value,
                "batch_size": batch,
                "epochs": self.epochs,
            },
            trained_parameters=start.matrix.numel(),
            selection=choice.record,
            held_out=choice.held_out,
            tower_adapter=TrunkAdapter(),
            feature_norm="raw",
        )

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.trunk * sizes.dim


def fit_projections(
    start: Projection,
    features: Tensor,
    task: FewShotTask,
    strength: float,
    schedule: Schedule,
    rows: list[Tensor],
) -> list[Projection]:
    """R trained projections (trunk, D), one for each tensor of ``rows``, in one pass.

    Args:
        start: CLIP's own, left as it is.
        features: trunk features (V, N, trunk).
        task: labels, text weights, logit scale and seed.
        strength: of the penalty on the squared distance from ``start``, 0 or more.
        schedule: optimiser and learning rate.
        rows: R tensors of row indices.
    """
    matrix, weights = start.matrix.detach(), task.require_text(ProLIP.name)
    module = Projection(matrix.repeat(len(rows), 1, 1), start.bias)
    head = Head(weights, module, logit_scale=task.logit_scale)

    def penalty() -> Tensor:
        return strength * (module.matrix - matrix).square().sum((-1, -2))

    batch = min(schedule.batch_size, len(task.train))
    work = len(rows) * batch * matrix.shape[-1] * (len(matrix) + len(weights))
    train_on(task, head, rows, schedule, work=work, logits=head, features=features, penalty=penalty)
    return [Projection(own, module.bias) for own in module.matrix]
