"""Every method by the command line, on architectures of OpenAI's CLIP at their true sizes."""

import json

import pytest

from clip_adapter.errors import BackboneError
from clip_adapter.methods import get_method, method_names

# They go into transformer blocks, and a ResNet has none.
NO_RESNET = ("clip-lora", "houlsby", "parallel-adapter")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["ViT-B-32/random", "RN50/random"])
@pytest.mark.parametrize("method", method_names())
def test_fit_and_predict(method, backbone, run, uneven, tmp_path):
    runs_tower = get_method(method).reads == "images" or get_method(method).runs_text_tower
    short = ("-o", "epochs=1") if runs_tower else ()
    words = ("--method", method, "--backbone", backbone, "--device", "cpu", *short)
    fitted = run("fit", uneven, *words, "--out", tmp_path / "made")
    assert isinstance(fitted.exception, SystemExit | None)
    if backbone.startswith("RN50") and method in NO_RESNET:
        assert fitted.exit_code == BackboneError.exit_code
        assert all(word in fitted.stderr for word in ("vision transformer", "Allowed:", "Next:"))
        assert "Traceback" not in fitted.output
        return
    assert fitted.exit_code == 0, fitted.stderr
    answered = run("predict", tmp_path / "made", uneven / "test", "--device", "cpu", "--json")
    assert answered.exit_code == 0, answered.stderr
    answers = json.loads(answered.stdout)
    assert len(answers) == 6
    assert not any("error" in answer for answer in answers)
