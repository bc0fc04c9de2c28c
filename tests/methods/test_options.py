"""Options as users write them: read as the field is annotated, or refused with what it takes."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from clip_adapter.errors import UsageError
from clip_adapter.methods import get_method, make_method
from clip_adapter.methods.base import MAX_WHOLE
from clip_adapter.options import Bounds, check_bounds


@pytest.mark.parametrize(
    ("method", "option", "given", "read"),
    [
        ("clip-adapter", "steps", "1e2", 100),
        ("clip-adapter", "steps", 100.0, 100),
        ("clip-adapter", "steps", "none", None),
        ("clip-adapter", "lr", "1e-3", 0.001),
        ("clip-adapter", "visual_ratio", "auto", "auto"),
        ("clip-adapter", "visual_ratio", "0.5", 0.5),
        ("clap", "constraint", "none", "none"),
        ("houlsby", "blocks", "3", 3),
        ("houlsby", "blocks", "1,2", "1,2"),
        ("fine-tune", "augment", "false", False),
        ("fine-tune", "augment", True, True),
    ],
)
def test_a_value_is_read_as_its_field(method, option, given, read):
    value = getattr(make_method(method, {option: given}), option)
    assert (value, type(value)) == (read, type(read))


@pytest.mark.parametrize(
    ("method", "option", "given", "allowed"),
    [
        ("clip-adapter", "steps", "3.5", "a whole number, 1 or more; none"),
        ("clip-adapter", "steps", MAX_WHOLE + 1, f"whole numbers up to {MAX_WHOLE}"),
        ("clip-adapter", "lr", True, "a number above 0; none"),
        ("clip-adapter", "lr", 0, "a number above 0"),
        ("clip-adapter", "lr", "1e40", "float32 holds no others"),
        ("clip-adapter", "visual_ratio", "nan", "0 to 1; auto, learnable, hypernetwork"),
        ("clip-adapter", "visual_ratio", 1.5, "0 to 1; auto, learnable, hypernetwork"),
        ("clap", "recipe", "slow", "fast, official"),
        ("fine-tune", "augment", "perhaps", "true, false"),
        ("auto", "among", 3, "a name"),
    ],
)
def test_what_a_field_does_not_take_is_refused_with_what_it_does(method, option, given, allowed):
    with pytest.raises(UsageError, match=option) as error:
        make_method(method, {option: given})
    assert allowed in error.value.allowed


@pytest.mark.parametrize("given", ["words", "1.5", 1.5])
def test_what_is_no_number_and_what_is_out_of_bounds_are_told_alike(given):
    with pytest.raises(UsageError) as error:
        make_method("clip-adapter", {"visual_ratio": given})
    assert error.value.found == f"clip-adapter option visual_ratio = {given!r}."
    assert error.value.allowed == "0 to 1; auto, learnable, hypernetwork"
    with pytest.raises(UsageError) as plain:
        get_method("clip-adapter")(visual_ratio=1.5)
    assert plain.value.allowed == error.value.allowed


def test_an_option_of_another_method_is_named_with_it():
    with pytest.raises(
        UsageError, match=r"(?s)option of clap .steps..*Name the method that has it: clip-adapter"
    ):
        make_method("clap", {"steps": 3})


@pytest.mark.parametrize(
    ("method", "symbol", "option"),
    [
        ("tip-adapter", "alpha", "cache_weight"),
        ("tip-adapter-f", "beta", "cache_sharpness"),
        ("clip-adapter", "alpha", "visual_ratio"),
        ("taskres", "alpha", "residual_scale"),
        ("wise-ft", "alpha", "mixing"),
    ],
)
def test_what_a_paper_calls_an_option_is_told(method, symbol, option):
    with pytest.raises(UsageError, match=f"paper calls {symbol} is {option} here"):
        make_method(method, {symbol: 0.5})
    assert hasattr(make_method(method), option)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"above": 0, "below": 1}, "above 0, below 1"),
        ({"below": 1}, "below 1"),
        ({"most": 2}, "at most 2"),
        ({"above": 0, "most": 1}, "above 0, up to 1"),
    ],
)
def test_bounds_of_every_kind_are_told(bounds, words):
    @dataclass
    class Options:
        rate: Annotated[float, Bounds(**bounds)] = 5.0

    with pytest.raises(UsageError, match=r"rate = 5\.0") as caught:
        check_bounds(Options())
    assert caught.value.allowed == words
