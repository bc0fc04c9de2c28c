"""Many shots of many classes: larger and fewer steps, and a short training of clip-adapter."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods import clip_adapter as module
from clip_adapter.methods.clip_adapter import FAR, LARGE, READ
from clip_adapter.nn import normalize
from clip_adapter.training import fast_schedule, folds_of, for_large, is_large
from clip_adapter.training.recipes import LARGE_BATCH, LARGE_PICTURES
from clip_adapter.training.selection import mean, score

C, D, SCALE = 500, 32, 20.0


def shots(numbers, shift, seed=0, noise=0.9):
    """Pictures whose classes' centres lie ``shift`` from the text, all in one direction."""
    generator = torch.Generator().manual_seed(seed)
    text = normalize(torch.randn(C, D, generator=torch.Generator().manual_seed(9)))
    # Downwards: what the adapter adds is positive.
    labels = torch.arange(C).repeat_interleave(torch.as_tensor(numbers))
    x = (text - shift / D**0.5)[labels] + noise * torch.randn(
        len(labels), D, generator=generator
    ) / D**0.5
    return FewShotTask(FeatureSet(x, labels, [f"c{i}" for i in range(C)]), text, SCALE)


def accuracy(classifier, task):
    return float((classifier.logits(task.train).argmax(1) == task.train.labels).double().mean())


EVEN = [8] * C
UNEVEN = [*[31] * 100, *[3] * 300, *[1] * 99, 0]


@pytest.mark.parametrize("numbers", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("branch", ["visual", "text", "both"])
def test_shots_near_to_clip_take_a_short_training(numbers, branch):
    task = shots(numbers, shift=0.2)
    assert is_large(task.train)
    classifier = learn("clip-adapter", task, {"branch": branch})
    taken, (selection,) = classifier.info["hyperparameters"], classifier.info["selection"]
    folds = folds_of(task.train, task.seed)
    expected = -(-LARGE["epochs"] * len(folds[0].fit) // 512) + -(-len(task.train) // 512)
    assert (taken["batch_size"], taken["steps"]) == (512, expected)
    branches = 1 + (branch == "both")
    assert len(selection["candidates"]) == len(READ) ** branches
    # What is recorded of ratio 0 is zero-shot CLIP, worked out here from the features.
    rows = torch.cat([f.held_out for f in folds])
    weight = torch.cat([f.weight for f in folds])
    zero = SCALE * normalize(task.train.plain_view[rows]) @ normalize(task.text_weights).T
    hits, losses = score(zero, task.train.labels[rows], weight)
    assert selection["loss"][0] == pytest.approx(mean(losses, weight), rel=1e-4)
    assert selection["accuracy"][0] == pytest.approx(100 * mean(hits, weight), abs=0.2)
    assert min(selection["loss"]) >= (1 - FAR) * selection["loss"][0]
    fresh = shots([4] * C, shift=0.2, seed=5)
    assert accuracy(classifier, fresh) >= accuracy(learn("zero-shot", task), fresh) - 0.01
    if branch == "visual":
        ratio = classifier.head.image_map.ratio.value
        assert taken["visual_ratio"] == pytest.approx(float(ratio))


def test_the_same_seed_gives_the_same_bits():
    task = shots(EVEN, shift=0.2)
    one, two = (learn("clip-adapter", task).logits(task.train) for _ in range(2))
    other = learn("clip-adapter", dataclasses.replace(task, seed=2)).logits(task.train)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_shots_far_from_clip_take_the_whole_selection(monkeypatch):
    task, fresh = shots(EVEN, shift=1.2), shots([4] * C, shift=1.2, seed=5)
    far = learn("clip-adapter", task)
    assert accuracy(far, fresh) > accuracy(learn("zero-shot", task), fresh) + 0.1
    monkeypatch.setattr(module, "is_large", lambda train: False)
    usual = learn("clip-adapter", task)
    assert torch.equal(far.logits(fresh.train), usual.logits(fresh.train))
    assert far.info["selection"] == usual.info["selection"]


@pytest.mark.parametrize(
    "options",
    [{"steps": 30}, {"lr": 1e-3}, {"batch_size": 64}, {"visual_ratio": 0.2}],
    ids=lambda o: next(iter(o)),
)
def test_what_is_given_is_taken(options):
    task = shots(EVEN, shift=0.2)
    taken = learn("clip-adapter", task, options).info["hyperparameters"]
    assert {name: taken[name] for name in options} == options
    assert taken["batch_size"] == options.get("batch_size", 256)


def test_one_learnable_ratio_beside_one_to_be_chosen():
    options = {"branch": "both", "text_ratio": "learnable"}
    taken = learn("clip-adapter", shots(EVEN, shift=0.2), options).info["hyperparameters"]
    assert taken["text_ratio"] == "learnable"
    assert taken["batch_size"] == 256


@pytest.mark.parametrize("name", ["clap", "wise-ft"])
def test_large_steps_learn_as_much_as_small_ones(name, monkeypatch):
    task, fresh = shots(EVEN, shift=0.8), shots([4] * C, shift=0.8, seed=5)
    large = accuracy(learn(name, task), fresh)
    monkeypatch.setattr("clip_adapter.training.recipes.LARGE_PICTURES", 10**9)
    assert large >= accuracy(learn(name, task), fresh) - 0.01
    assert large > accuracy(learn("zero-shot", task), fresh)


@pytest.mark.parametrize(
    ("pictures", "classes", "large"),
    [
        (LARGE_PICTURES, 500, True),
        (LARGE_PICTURES - 1, 1000, False),  # few pictures
        (LARGE_PICTURES, 499, False),  # few scores
        (LARGE_PICTURES, 1001, False),  # fewer than four shots
        (1_000_000, 2, True),
    ],
)
def test_which_shots_are_many(pictures, classes, large):
    names = [f"c{i}" for i in range(classes)]
    train = FeatureSet(torch.ones(pictures, 1), torch.arange(pictures) % classes, names)
    assert is_large(train) == large
    base = fast_schedule(4, pictures)
    expected = dataclasses.replace(
        base, lr=3 * base.lr, batch_size=LARGE_BATCH, steps=-(-2 * pictures // LARGE_BATCH)
    )
    assert for_large(base, train, rate=3.0, epochs=2) == (expected if large else base)
