"""CoOp's prompts token by token against hand-made ones, and its start against the text tower."""

import dataclasses

import pytest
import torch

from clip_adapter.backbones import load_backbone
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.nn import ResidualAdapter, normalize
from clip_adapter.nn.prompt import context_tokens, lay_out

SOS, EOT, X, STOP = 49406, 49407, 343, 269  # of the vocabulary of CLIP
CAT, HOT, DOG = 2368, 2069, 1929
NAMES = ["cat", "hot dog"]


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("demo", device="cpu")


@pytest.fixture
def task(backbone):
    generator = torch.Generator().manual_seed(0)
    features = 10 * torch.randn(6, backbone.embed_dim, generator=generator)
    train = FeatureSet(features, torch.tensor([0, 1, 0, 1, 0, 1]), NAMES)
    hard = normalize(backbone.encode_text([f"a photo of a {n}." for n in NAMES]))
    return FewShotTask(train, hard, 20.0, backbone=backbone)


LAYOUTS = {
    "end": (
        [SOS, X, X, X, CAT, STOP, EOT, 0],
        [SOS, X, X, X, HOT, DOG, STOP, EOT],
        [[1, 2, 3], [1, 2, 3]],
    ),
    "middle": (
        [SOS, X, CAT, X, X, STOP, EOT, 0],
        [SOS, X, HOT, DOG, X, X, STOP, EOT],
        [[1, 3, 4], [1, 4, 5]],
    ),
    "front": (
        [SOS, CAT, X, X, X, STOP, EOT, 0],
        [SOS, HOT, DOG, X, X, X, STOP, EOT],
        [[2, 3, 4], [3, 4, 5]],
    ),
}


@pytest.mark.parametrize("position", list(LAYOUTS))
def test_prompt_token_by_token(backbone, position):
    cat, dog, columns = LAYOUTS[position]
    tokens, where = lay_out(
        backbone.tokenize, NAMES, context_tokens(backbone.tokenize, 3), position
    )
    assert tokens.shape == (2, 32)
    assert tokens[:, :8].tolist() == [cat, dog]
    assert not tokens[:, 8:].any()
    assert where.tolist() == columns
    assert torch.equal(backbone.trim_tokens(tokens), tokens[:, :8])


@pytest.mark.parametrize("position", list(LAYOUTS))
@pytest.mark.parametrize("per_class", [False, True])
def test_the_vectors_stand_where_the_layout_says(backbone, task, position, per_class):
    options = {"context_length": 3, "class_token_position": position, "per_class": per_class}
    module = make_method("coop", options).build(task)
    given, context = module.prompts(), module.prompts.context
    cat, dog, _ = LAYOUTS[position]
    table = backbone.model.token_embedding.weight
    for i, row in enumerate((cat, dog)):
        own = iter(context[i] if per_class else context)
        expected = torch.stack([next(own) if t == X else table[t] for t in row])
        assert torch.equal(given[i], expected)


def test_words_as_the_start_are_the_words_themselves(backbone, task):
    words = context_tokens(backbone.tokenize, "a photo of a")
    tokens, _ = lay_out(backbone.tokenize, NAMES, words, "end")
    assert torch.equal(tokens, backbone.tokenize([f"a photo of a {n}." for n in NAMES]))
    for per_class in (False, True):
        options = {"context_init": "a photo of a", "per_class": per_class}
        module = make_method("coop", options).build(task)
        expected = backbone.encode_text([f"a photo of a {n}." for n in NAMES])
        torch.testing.assert_close(module.class_weights(), expected, rtol=1e-5, atol=1e-5)
    module = make_method(
        "coop", {"context_init": "there is a", "class_token_position": "middle"}
    ).build(task)
    expected = backbone.encode_text([f"there {n} is a." for n in NAMES])
    torch.testing.assert_close(module.class_weights(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["coop", "coop-adapter"])
def test_gradient_reaches_the_context_through_the_tower_and_nothing_else(backbone, task, name):
    module = make_method(name, {"context_length": 3}).build(task)
    trained = {n for n, _ in module.named_parameters()}
    context = {"prompts.context"}
    adapter = {"adapter.bottleneck.down", "adapter.bottleneck.up"}
    assert trained == (context if name == "coop" else context | adapter)

    def loss():
        scores = task.logit_scale * module(task.train.features)[0]
        return torch.nn.functional.cross_entropy(scores, task.train.labels)

    loss().backward()
    assert all(p.grad is None for p in backbone.model.parameters())
    vectors = module.prompts.context
    gradient, step = vectors.grad.clone(), 1e-2
    direction = normalize(gradient.flatten()).view_as(gradient)
    with torch.no_grad():  # the slope along the gradient, measured by central differences
        vectors += step * direction
        above = loss()
        vectors -= 2 * step * direction
        slope = (above - loss()) / (2 * step)
    torch.testing.assert_close(slope, gradient.norm(), rtol=2e-2, atol=1e-4)


def test_classes_in_parts_give_the_same_weights_and_gradient(task, monkeypatch):
    results = []
    for chunk in (128, 1):
        monkeypatch.setattr("clip_adapter.towers.text.CHUNK", chunk)
        module = make_method("coop", {"context_length": 3}).build(task)
        weights = module.class_weights()
        weights.square().sum().backward()
        results.append((weights.detach(), module.prompts.context.grad))
    for one, two in zip(*results, strict=True):
        assert (one - two).norm() < 1e-5 * two.norm()


@pytest.mark.parametrize("position", list(LAYOUTS))
@pytest.mark.parametrize("pack", [1, 2, 3, 16])
def test_a_beginning_computed_once_gives_the_same_weights_and_gradient(
    backbone, task, position, pack, monkeypatch
):
    monkeypatch.setattr("clip_adapter.backbones.prompts.PACK", pack)
    names = ["cat", "hot dog", "sea", "eel", "big red hot dog"]
    features = FeatureSet(torch.randn(5, 128), torch.arange(5), names)
    wider = dataclasses.replace(task, train=features, text_weights=None)
    module = make_method("coop", {"context_length": 5, "class_token_position": position}).build(
        wider
    )
    assert module._shared == {"end": 6, "middle": 3, "front": 1}[position]
    results = []
    for shared in (module._shared, 0):
        module._shared = shared
        module.prompts.context.grad = None
        weights = module.class_weights()
        (weights * torch.arange(5.0)[:, None]).square().sum().backward()
        results.append((weights.detach(), module.prompts.context.grad))
    for one, two in zip(*results, strict=True):
        assert (one - two).norm() < 1e-5 * two.norm()


def test_the_mixture_is_the_mean_of_both_prompts_below_an_adapter(backbone, task):
    module = make_method("coop-adapter", {"context_init": "many", "visual_ratio": 0.3}).build(task)
    soft = backbone.encode_text([f"many {n}." for n in NAMES]).double()
    hard = task.text_weights.double()
    mean = (soft / soft.norm(dim=1, keepdim=True) + hard) / 2
    mean = mean / mean.norm(dim=1, keepdim=True)
    torch.testing.assert_close(module.class_weights().double(), mean, rtol=1e-5, atol=1e-5)
    adapter = module.adapter
    assert isinstance(adapter, ResidualAdapter)
    f = task.train.plain_view.double()
    down, up = adapter.bottleneck.down.double(), adapter.bottleneck.up.double()
    mapped = 0.3 * ((f @ down).clamp(min=0) @ up).clamp(min=0) + 0.7 * f
    expected = mapped / mapped.norm(dim=1, keepdim=True) @ mean.T
    torch.testing.assert_close(
        module(task.train.plain_view).double(), expected, rtol=1e-5, atol=1e-5
    )
