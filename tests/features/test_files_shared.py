"""Zero-shot accuracy on real CLIP features pins how a file is read."""

from pathlib import Path

import pytest

from clip_adapter.features.files import load_features
from clip_adapter.nn.cosine import cosine_logits

SHARED = Path(__file__).parents[3] / "shared" / "clip_features"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here"),
]


@pytest.mark.parametrize(
    ("spec", "accuracy"),
    [
        ("imagenet.safetensors#eval_1shot", 61.11),
        ("imagenet.safetensors#eval_4shot", 60.93),
        ("caltech101_matched.safetensors#test", 96.44),
    ],
)
def test_zero_shot_accuracy(spec, accuracy):
    precomputed = load_features(f"{SHARED}/{spec}")
    data = precomputed.feature_set
    assert data.feature_norm == "unit"
    logits = cosine_logits(data.plain_view, precomputed.text, precomputed.logit_scale)
    top1 = 100 * (logits.argmax(1) == data.labels).float().mean().item()
    assert top1 == pytest.approx(accuracy, abs=0.006)


def test_a_file_without_text():
    precomputed = load_features(f"{SHARED}/ucf101.safetensors#train_16shot")
    assert precomputed.text is None
    assert precomputed.feature_set.class_names[0] == "Apply_Eye_Makeup"
    assert len(precomputed.feature_set) == 1616
    assert precomputed.feature_set.features.norm(dim=-1).sub(1).abs().max() < 1e-5
