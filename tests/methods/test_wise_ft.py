"""wise-ft: both ends of the mixture, the choice of the share, and what cannot be mixed."""

import pytest
import torch
from learn import learn

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, get_method, make_method, method_names
from clip_adapter.methods.wise_ft import CANDIDATES, mixed
from clip_adapter.nn import normalize
from clip_adapter.towers import tuned


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(4, 16, generator=generator))
    labels = torch.arange(4).repeat(5)
    x = centres[labels] + 0.3 * torch.randn(20, 16, generator=generator)
    text = normalize(centres + 0.2 * torch.randn(4, 16, generator=generator))
    return FewShotTask(FeatureSet(10 * x, labels, list("abcd")), text, 20.0)


def fit(task, **options):
    return learn("wise-ft", task, options)


def test_both_ends_and_the_middle(task):
    x = task.train.plain_view
    zero_shot = learn("zero-shot", task).logits(x)
    start, middle, end = (fit(task, mixing=a).logits(x) for a in (0, 0.5, 1))
    torch.testing.assert_close(start, zero_shot, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(middle, (start + end) / 2, atol=1e-4, rtol=1e-4)
    assert (end - start).abs().max() > 0.1
    assert torch.equal(fit(task).logits(x), middle)


def test_of_another_method_is_its_weights(task):
    options = {"of": "clip-adapter"}
    with pytest.raises(UsageError, match="wise-ft-tower"):
        fit(task, **options)
    trained = learn("taskres", task)
    whole = fit(task, of="taskres", mixing=1)
    torch.testing.assert_close(
        whole.logits(task.train.plain_view), trained.logits(task.train.plain_view)
    )
    half = fit(task, of="taskres")
    assert half.info["trained_parameters"] == trained.info["trained_parameters"]
    assert not torch.equal(half.head.weights, whole.head.weights)


def test_the_share_is_chosen_on_held_out_shots(task):
    classifier = fit(task, mixing="auto")
    (selection,) = classifier.info["selection"]
    assert selection["candidates"] == list(CANDIDATES)
    assert classifier.info["hyperparameters"]["mixing"] == selection["chosen"]
    held_out = classifier.info["held_out"]
    assert held_out["pictures"] == 20
    # the first candidate is zero-shot
    assert selection["accuracy"][0] == pytest.approx(held_out["zero_shot_accuracy"])
    one = FewShotTask(task.train.subset([0, 1, 2, 3]), task.text_weights, 20.0)
    assert fit(one, mixing="auto").info["hyperparameters"]["mixing"] == 0.5


@pytest.mark.parametrize("wrong", [{"of": "no-such"}, {"of": "wise-ft"}, {"mixing": 1.5}])
def test_wrong_options(wrong):
    with pytest.raises(UsageError, match="Allowed"):
        make_method("wise-ft", wrong)


def test_methods_that_train_inside_are_named_elsewhere():
    with pytest.raises(UsageError, match="wise-ft-tower"):
        make_method("wise-ft", {"of": "fine-tune"})


@pytest.mark.parametrize("of", ["l-2p", "tip-adapter", "auto", "fine-tune"])
def test_more_than_one_vector_per_class_is_refused_before_any_training(of):
    with pytest.raises(UsageError, match="one weight vector per class") as error:
        make_method("wise-ft", {"of": of})
    assert "clap" in str(error.value)


def test_every_method_that_says_so_can_be_mixed(task):
    able = [n for n in method_names() if get_method(n).one_vector_per_class]
    assert {"clap", "gda", "lp++", "taskres", "zero-shot"} <= set(able)
    for name in able:
        mixed(make_method(name).fit(task), task, 0.5, name)


def test_tower(pixel_task, make_folder):
    backbone = load_backbone(f"local-dir:{make_folder()}", device="cpu")
    task = pixel_task(backbone)
    pixels = task.pictures.batch(range(len(task.pictures)))
    options = {"lr": 1e-3, "batch_size": 4, "epochs": 2}

    def logits(share):
        classifier = learn("wise-ft-tower", task, options | {"mixing": share})
        assert classifier.head.image_map is None
        features = tuned(backbone, classifier.tower_adapter).encode_images(pixels)
        return classifier.logits(features), classifier

    start, _ = logits(0)
    assert torch.equal(start, learn("zero-shot", task).logits(task.train.plain_view))
    inner = {"adapter": False, **options}
    trained = learn("fine-tune", task, inner)
    end, whole = logits(1)
    assert torch.equal(
        end, trained.logits(tuned(backbone, trained.tower_adapter).encode_images(pixels))
    )
    _, half = logits(0.5)
    for a, b, c in zip(
        half.tower_adapter.values,
        whole.tower_adapter.values,
        backbone.model.visual.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(a, (b + c) / 2)
    if trained.info["hyperparameters"]["best_step"]:
        assert not torch.equal(start, end)
