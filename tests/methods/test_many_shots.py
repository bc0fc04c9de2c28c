"""Many shots of many classes: larger and fewer steps, and a short training of clip-adapter."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.classifier import Classifier
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
UNEVEN = [*[10] * 300, *[6] * 150, *[3] * 49, 0]
# A fold is as uneven: it trains on 500 of these 4,088 pictures.
FEW_TO_TRY = [*[300] * 12, *[1] * 488]


@pytest.mark.parametrize("numbers", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize(("branch", "shift"), [("visual", 0.2), ("text", 0.6), ("both", 0.2)])
def test_shots_near_to_clip_take_a_short_training(numbers, branch, shift):
    task = shots(numbers, shift)
    assert is_large(task.train)
    classifier = learn("clip-adapter", task, {"branch": branch})
    taken, (selection,) = classifier.info["hyperparameters"], classifier.info["selection"]
    folds = folds_of(task.train, task.seed)
    fit, whole = len(folds[0].fit), len(task.train)
    steps = [-(-LARGE["epochs"] * fit // 512), -(-whole // 512)]
    assert (taken["batch_size"], taken["steps"]) == (512, sum(steps))
    # What was trained, for who reads the record: two rounds, at a ratio that may be another.
    told = {"trained_at_ratio": 0.2, "steps": steps, "pictures": [fit, whole]}
    assert taken["short_training"] == told
    branches = 1 + (branch == "both")
    assert len(selection["candidates"]) == len(READ) ** branches
    # What is recorded of ratio 0 is zero-shot CLIP, worked out here from the features.
    rows = torch.cat([f.held_out for f in folds])
    weight = torch.cat([f.weight for f in folds])
    zero = SCALE * normalize(task.train.plain_view[rows]) @ normalize(task.text_weights).T
    hits, losses = score(zero, task.train.labels[rows], weight)
    assert selection["loss"][0] == pytest.approx(mean(losses, weight), rel=1e-4)
    assert selection["accuracy"][0] == pytest.approx(100 * mean(hits, weight), abs=0.2)
    gain = 1 - min(selection["loss"]) / selection["loss"][0]
    assert 0 < gain <= FAR
    fresh = shots([4] * C, shift, seed=5)
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
    ("numbers", "shift", "noise", "branch"),
    [
        (FEW_TO_TRY, 1.2, 0.9, "visual"),
        # What is learnt of these words is worth nothing: ratio 0 has the lowest loss.
        (EVEN, 0.1, 1.5, "text"),
    ],
    ids=["few to try", "nothing gained"],
)
def test_a_short_training_that_tells_nothing_is_not_taken(numbers, shift, noise, branch):
    task = shots(numbers, shift, noise=noise)
    assert is_large(task.train)
    classifier = learn("clip-adapter", task, {"branch": branch})
    taken, (selection,) = classifier.info["hyperparameters"], classifier.info["selection"]
    assert taken["batch_size"] == 256
    assert "short_training" not in taken
    assert len(selection["candidates"]) > len(READ)


def test_a_branch_whose_ratio_is_0_keeps_no_adapter(tmp_path):
    task = shots(EVEN, shift=0.1, noise=1.5)
    classifier = learn("clip-adapter", task, {"branch": "both"})
    taken = classifier.info["hyperparameters"]
    assert (taken["visual_ratio"], taken["text_ratio"]) == (0.2, 0)
    assert classifier.info["trained_parameters"] == 2 * D * (D // 4)
    assert torch.equal(classifier.head.weights, task.text_weights)
    classifier.save(tmp_path / "saved")
    again = Classifier.load(tmp_path / "saved")
    assert again.info["hyperparameters"] == taken
    assert '"trained_at_ratio": 0.2' in (tmp_path / "saved" / "README.md").read_text()
    assert torch.equal(again.logits(task.train), classifier.logits(task.train))


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


def test_folds_train_by_the_recipe_of_all_shots(monkeypatch):
    """A fold has fewer than 4,000 of them, and what is chosen on it is meant for the whole."""
    task, taken = shots(EVEN, shift=0.8), []

    def noted(part, module, rows, schedule, **options):
        taken.append((schedule.batch_size, schedule.steps))

    monkeypatch.setattr("clip_adapter.methods.clap.train_on", noted)
    learn("wise-ft", task, {"of": "clap", "mixing": "auto"})
    whole, *folds = taken
    assert whole[0] == 512
    assert folds == [whole]


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
