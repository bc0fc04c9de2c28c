"""Methods of other packages, by entry point: found, passed over when broken, loaded again."""

import sys
import types
from importlib.metadata import EntryPoint

import pytest
import torch

from clip_adapter.classifier import Classifier
from clip_adapter.errors import ClassifierError, UnknownTowerAdapterError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import fit_task
from clip_adapter.heads import Head
from clip_adapter.methods import base
from clip_adapter.task import FewShotTask, Fitted
from clip_adapter.towers import TOWER_ADAPTERS
from clip_adapter.towers import base as towers
from clip_adapter.towers.adapters import Houlsby

SOURCE = '''
from dataclasses import dataclass
from clip_adapter.methods import Method, register
from clip_adapter.towers import register_tower_adapter
from clip_adapter.towers.adapters import Houlsby


@register_tower_adapter
class Mine(Houlsby):
    kind = "mine"


@register
@dataclass
class Plugged(Method):
    """A method of another package."""

    name = "plugged"
    summary = "nothing"
    citation = "arXiv 0000.00000"
    trains = "nothing"

    def fit(self, task):
        raise NotImplementedError
'''


@pytest.fixture
def installed(monkeypatch):
    """installed(entry): the entry point of a package that is there, or not."""
    assert base.method_names()  # the built-in ones are there before
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.setattr(base, "_BROKEN", set())

    def add(entry):
        for module in (base, towers):
            monkeypatch.setattr(module, "entry_points", lambda group: [entry])

    yield add
    TOWER_ADAPTERS.pop("mine", None)


def import_their_package(monkeypatch):
    """What happens when Python imports it."""
    module = types.ModuleType("their_package")
    monkeypatch.setitem(sys.modules, "their_package", module)
    exec(compile(SOURCE, "their_package", "exec"), module.__dict__)
    return module


class Entry(EntryPoint):
    """An entry point whose package is imported at its first use."""

    monkeypatch = None

    def load(self):
        return import_their_package(self.monkeypatch)


def test_a_method_is_found_by_its_entry_point(installed, monkeypatch):
    monkeypatch.setattr(Entry, "monkeypatch", monkeypatch)
    installed(Entry("plugged", "their_package", "clip_adapter.methods"))
    assert "plugged" in base.method_names()
    assert base.get_method("plugged").summary == "nothing"


def test_a_class_of_the_same_name_does_not_take_the_place_of_a_built_in(installed):
    ours = base.get_method("gda")

    class GDA(ours):
        """Another package's, called as ours is."""

    GDA.__qualname__ = ours.__qualname__
    assert GDA.__module__ != ours.__module__
    with pytest.raises(UsageError, match=r"clip_adapter\.methods\.gda\.GDA and .*GDA"):
        base.register(GDA)
    assert base.get_method("gda") is ours


def test_a_module_that_is_loaded_again_registers_again(installed, monkeypatch):
    first = import_their_package(monkeypatch).Plugged
    second = import_their_package(monkeypatch).Plugged
    assert first is not second
    installed(EntryPoint("plugged", "their_package", "clip_adapter.methods"))
    assert base.get_method("plugged") is second


def test_a_broken_one_is_told_once_and_passed_over(installed):
    installed(EntryPoint("plugged", "no_such_package.at_all", "clip_adapter.methods"))
    with pytest.warns(UserWarning, match="plugged.*no_such_package"):
        assert "clip-adapter" in base.method_names()
    assert "clip-adapter" in base.method_names()


def test_a_change_of_another_package_is_loaded_again(installed, monkeypatch, tmp_path):
    module = import_their_package(monkeypatch)
    adapter = module.Mine([1], 8, 4, torch.Generator().manual_seed(0))
    head = Head(torch.eye(2, 8))
    folder = Classifier(head, ["a", "b"], tower_adapter=adapter).save(tmp_path / "classifier")
    TOWER_ADAPTERS.pop("mine")
    installed(EntryPoint("other", "nothing_here:Plugged", "clip_adapter.methods"))
    with pytest.raises(UnknownTowerAdapterError, match="'mine'") as error:
        Classifier.load(folder)
    assert "Install the package" in str(error.value)
    monkeypatch.setattr(Entry, "monkeypatch", monkeypatch)
    installed(Entry("plugged", "their_package", "clip_adapter.methods"))
    assert isinstance(Classifier.load(folder).tower_adapter, Houlsby)


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (lambda task: None, UsageError, r"Wrong\.fit \(wrong\) returned NoneType"),
        (lambda task: task.text_weights, UsageError, "returned Tensor"),
        (lambda task: Fitted(Head(torch.ones(3, 5))), UsageError, r"features(.|\n)*\(3, 4\)"),
        (
            lambda task: Fitted(Head(task.text_weights), {"means": task.text_weights}),
            UsageError,
            "(?s)Wrong.*JSON.*type Tensor.*tolist",
        ),
        (lambda task: Fitted(Head(task.text_weights[:2])), ClassifierError, "scores 2 classes"),
        (
            lambda task: Fitted(Head(task.text_weights.new_full((3, 4), torch.nan))),
            ClassifierError,
            "NaN",
        ),
    ],
)
def test_what_a_method_must_not_return_is_told(returned, error, words):
    class Wrong(base.Method):
        """Returns what it should not."""

        name, summary, citation = "wrong", "wrong", "arXiv 0000.00000"

        def fit(self, task):
            return returned(task)

    train = FeatureSet(torch.eye(3, 4)[None], torch.arange(3), list("abc"))
    with pytest.raises(error, match=words):
        fit_task(Wrong(), FewShotTask(train, torch.eye(3, 4)), {})


def some(**body):
    """A class as another package might write it."""
    fit = {"fit": lambda self, task: None}
    return type("Some", (base.Method,), {"__module__": "theirs", **fit, **body})


ABOUT = {"name": "some", "summary": "nothing", "citation": "arXiv 0000.00000"}


def test_what_is_registered_is_a_dataclass(installed):
    cls = base.register(**ABOUT, needs_text=False)(
        some(__annotations__={"strength": float}, strength=0.5)
    )
    method = base.make_method("some", {"strength": "2"})
    assert (method.strength, method.needs_text, base.get_method("some")) == (2.0, False, cls)


@pytest.mark.parametrize(
    ("cls", "about", "words"),
    [
        (some(), {}, r"theirs\.Some has no name, summary, citation"),
        (some(fit=base.Method.fit), ABOUT, "has no fit"),
        (some(__annotations__={"strength": float}), ABOUT, "has no default for strength"),
        (some(), {**ABOUT, "need_text": False}, "'need_text'. Did you mean 'needs_text'"),
        (type("Some", (), {}), ABOUT, "is no Method"),
    ],
)
def test_what_cannot_be_registered_is_told_with_the_class(installed, cls, about, words):
    with pytest.raises(UsageError, match=words):
        base.register(**about)(cls) if about else base.register(cls)
    assert "some" not in base.method_names()
