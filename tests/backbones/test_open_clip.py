import json
import logging
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from clip_adapter.backbones import Backbone, list_backbones, load_backbone
from clip_adapter.backbones.weights import DEMO_FOLDER
from clip_adapter.errors import BackboneError, UsageError

TEXTS = ["a photo of a cat.", "dog", "a very long text about a very small cat and a dog"]


def images(n=3, size=32):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow  # that the source imports it in functions alone is seen without a process
def test_importing_is_light():
    code = "import sys, clip_adapter.backbones; assert 'open_clip' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_loads_as_a_frozen_backbone(tiny, folder):
    assert isinstance(tiny, Backbone)
    assert tiny.name == f"local-dir:{folder}"
    assert tiny.embed_dim == 16
    assert tiny.logit_scale == pytest.approx(1 / 0.07)
    assert tiny.preprocess.image_size == 32
    assert tiny.preprocess.mean == (0.5, 0.5, 0.5)
    assert tiny.preprocess.std == (0.25, 0.25, 0.25)
    assert not tiny.model.training
    assert not any(p.requires_grad for p in tiny.model.parameters())
    described = tiny.describe()
    assert described["fingerprint"] == tiny.fingerprint
    json.dumps(described)


def test_features_are_raw_float32_and_usable_in_training(tiny):
    features = tiny.encode_images(images())
    expected = tiny.model.encode_image(images())
    torch.testing.assert_close(features, expected)
    text = tiny.encode_text(TEXTS)
    assert (features.shape, text.shape) == ((3, 16), (3, 16))
    assert features.dtype == text.dtype == torch.float32
    weight = torch.zeros(16, 16, requires_grad=True)
    (features @ weight @ text.T).sum().backward()  # inference tensors could not
    assert tiny.encode_text([]).shape == (0, 16)
    assert tiny.encode_images(images(0)).shape == (0, 16)


@pytest.mark.parametrize("custom_text", [False, True])
def test_prompt_embeddings_give_the_features_of_their_text(make_folder, custom_text):
    backbone = load_backbone(str(make_folder(custom_text)), device="cpu")
    tokens = backbone.tokenize(TEXTS)
    embeddings = backbone.embed_tokens(tokens).requires_grad_()
    out = backbone.encode_prompt_embeddings(embeddings, tokens)
    torch.testing.assert_close(out, backbone.encode_text(TEXTS), rtol=1e-4, atol=1e-5)
    out.sum().backward()
    assert embeddings.grad.abs().sum() > 0
    changed = backbone.encode_prompt_embeddings(embeddings.detach() + 1, tokens)
    assert not torch.allclose(changed, out)
    assert torch.equal(backbone.encode_text(TEXTS), backbone.encode_text(TEXTS))  # no hook is left


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_common_beginning_is_computed_once_to_the_same_features(make_folder, custom_text, dtype):
    backbone = load_backbone(str(make_folder(custom_text)), device="cpu", dtype=dtype)
    texts = [f"a photo of a {name}" for name in ("cat", "small dog.", "cat")]
    tokens = backbone.tokenize(texts)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.1, "atol": 0.05}
    for shared in (0, 1, 4, 5):
        embeddings = backbone.embed_tokens(tokens)
        out = backbone.encode_prompt_embeddings(embeddings, tokens, shared)
        torch.testing.assert_close(out, backbone.encode_text(texts), **close)
    same = backbone.tokenize(["a cat", "a cat"])  # nothing but the beginning
    out = backbone.encode_prompt_embeddings(backbone.embed_tokens(same), same, 16)
    torch.testing.assert_close(out, backbone.encode_text(["a cat", "a cat"]), **close)


@pytest.mark.parametrize("custom_text", [False, True])
def test_trimmed_prompts_give_the_same_features(make_folder, custom_text):
    backbone = load_backbone(str(make_folder(custom_text)), device="cpu")
    tokens = backbone.tokenize(TEXTS)
    short = backbone.trim_tokens(tokens)
    assert short.shape[1] == tokens.argmax(1).max() + 1 < tokens.shape[1]
    out = backbone.encode_prompt_embeddings(backbone.embed_tokens(short), short)
    torch.testing.assert_close(out, backbone.encode_text(TEXTS), rtol=1e-5, atol=1e-6)


def test_a_text_tower_that_looks_ahead_is_not_trimmed(make_folder):
    text = {"context_length": 16, "width": 32, "heads": 2, "layers": 1, "vocab_size": 49408}
    text |= {"no_causal_mask": True, "pool_type": "last"}
    backbone = load_backbone(str(make_folder(True, text_cfg=text)), device="cpu")
    tokens = backbone.tokenize(TEXTS)
    assert torch.equal(backbone.trim_tokens(tokens), tokens)


def test_a_text_tower_without_token_embeddings_is_refused(tiny, folder):
    backbone = load_backbone(str(folder), device="cpu")
    backbone.model.token_embedding = None
    with pytest.raises(BackboneError, match="takes no token embeddings"):
        backbone.encode_prompt_embeddings(torch.zeros(1, 16, 32), torch.zeros(1, 16))


def test_the_number_format_auto(folder):
    assert load_backbone(str(folder), device="cpu", dtype="auto").dtype == "float32"


@pytest.mark.gpu
def test_the_number_format_auto_on_a_gpu(folder):
    assert load_backbone(str(folder), device="cuda", dtype="auto").dtype == "float16"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_lower_precision(tiny, folder, dtype):
    low = load_backbone(str(folder), device="cpu", dtype=dtype)
    assert low.fingerprint == tiny.fingerprint
    assert low.dtype == dtype
    for one, two in [
        (low.encode_images(images()), tiny.encode_images(images())),
        (low.encode_text(TEXTS), tiny.encode_text(TEXTS)),
    ]:
        assert one.dtype == torch.float32
        assert not torch.equal(one, two)
        torch.testing.assert_close(one, two, rtol=0.1, atol=0.05)
    tokens = low.tokenize(TEXTS)
    out = low.encode_prompt_embeddings(low.embed_tokens(tokens), tokens)
    torch.testing.assert_close(out, low.encode_text(TEXTS), rtol=0.1, atol=0.05)


def test_fingerprint_covers_weights_and_what_they_do_not_show(tiny, folder, make_folder, tmp_path):
    same = shutil.copytree(folder, tmp_path / "same")
    assert load_backbone(str(same), device="cpu").fingerprint == tiny.fingerprint
    quick = load_backbone(str(make_folder(quick_gelu=True)), device="cpu")
    weights = load_file(folder / "open_clip_model.safetensors")
    assert all(torch.equal(quick.model.state_dict()[k], v) for k, v in weights.items())
    assert quick.fingerprint != tiny.fingerprint
    weights["visual.proj"][0, 0] += 1e-6
    save_file(weights, same / "open_clip_model.safetensors")
    assert load_backbone(str(same), device="cpu").fingerprint != tiny.fingerprint


def test_device_is_said(folder, monkeypatch, request, caplog):
    if request.config.getoption("--fake-accelerator"):
        pytest.skip("the pretend accelerator is found without a word")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    caplog.set_level("INFO", "clip_adapter")
    assert load_backbone(str(folder)).device == "cpu"
    assert caplog.messages == ["Device: CPU (no CUDA or MPS device found)"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": "toaster"}, "toaster"), ({"dtype": "float64"}, "Unknown dtype")],
)
def test_unknown_options(folder, options, message):
    with pytest.raises(UsageError, match=message):
        load_backbone(str(folder), **options)


def test_damaged_and_foreign_weights(folder, make_folder, architectures, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = broken / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(str(broken), device="cpu")
    weights.unlink()
    with pytest.raises(BackboneError, match="could not be loaded"):
        load_backbone(str(broken), device="cpu")
    shutil.copy(make_folder(embed_dim=8) / weights.name, weights)
    with pytest.raises(BackboneError, match="size mismatch"):
        load_backbone(str(broken), device="cpu")
    with pytest.raises(BackboneError, match="Tiny"):
        load_backbone(f"Tiny@gelu/{weights}", device="cpu")
    (broken / "open_clip_config.json").write_text("{")
    with pytest.raises(BackboneError, match="valid config"):
        load_backbone(str(broken), device="cpu")


def test_a_pickle_is_not_executed(architectures, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "w.pt")
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(f"Tiny@gelu/{tmp_path}/w.pt", device="cpu")
    assert not (tmp_path / "executed").exists()


def test_what_to_do_without_the_hub(hub):
    hub.error = ConnectionError("no route to host\nand a long trace")
    with pytest.raises(BackboneError) as error:
        load_backbone("ViT-B/32", device="cpu")
    text, repo = str(error.value), "timm/vit_base_patch32_clip_224.openai"
    assert f"hf download {repo} open_clip_model.safetensors" in text
    assert f"https://huggingface.co/{repo}/resolve/main/open_clip_model.safetensors" in text
    assert "--backbone ViT-B-32-quickgelu//" in text  # the bare file needs OpenAI's activation
    assert "--backbone demo" in text
    assert "long trace" not in text
    assert ", or unset HF_HUB_OFFLINE. " in text  # the tests set it
    with pytest.raises(BackboneError, match="--backbone ViT-B-32@gelu//"):
        load_backbone("ViT-B-32/laion2b_s34b_b79k", device="cpu")
    with pytest.raises(BackboneError, match=r"hf download org/repo open_clip_config\.json"):
        load_backbone("hf-hub:org/repo", device="cpu")


def test_loading_leaves_logging_and_random_numbers_alone(folder):
    root = logging.getLogger()
    before = (list(root.handlers), logging.root.manager.disable, torch.get_rng_state())
    load_backbone(str(folder), device="cpu")
    assert list(root.handlers) == before[0]
    assert logging.root.manager.disable == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_every_tag_that_open_clip_lists_can_be_named():
    import open_clip

    rows = list_backbones()
    names = [row["name"] for row in rows]
    assert {f"{arch}/{tag}" for arch, tag in open_clip.list_pretrained()} <= set(names)
    assert all(row["notes"] for row in rows)
    assert ("demo" in names) == DEMO_FOLDER.is_dir()


@pytest.mark.skipif(not (DEMO_FOLDER / "open_clip_config.json").exists(), reason="not shipped")
def test_demo_loads_offline():
    demo = load_backbone("demo", device="cpu")
    assert demo.name == "demo"
    assert demo.encode_text(["a red circle"]).shape == (1, demo.embed_dim)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "dim"), [("RN50", 1024), ("ViT-B-32", 512), ("ViT-B-16-SigLIP", 768)]
)
def test_true_architectures_with_random_weights(arch, dim, tmp_path):
    one = load_backbone(f"{arch}/random", device="cpu")
    state = torch.get_rng_state()
    again = load_backbone(f"{arch}/random", device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert one.fingerprint == again.fingerprint
    size = one.preprocess.image_size
    features = one.encode_images(images(2, size))
    assert features.shape == (2, dim)
    # a row does not depend on its place, nor on what lies beside it
    other = one.encode_images(torch.stack([torch.zeros(3, size, size), images(2, size)[0]]))
    assert torch.equal(other[1], features[0])
    word = "" if "SigLIP" in arch else "@gelu"
    save_file(one.model.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_backbone(f"{arch}{word}/{tmp_path}/weights.safetensors", device="cpu")
    assert loaded.fingerprint == one.fingerprint
    torch.save(one.model.state_dict(), tmp_path / "weights.pt")
    loaded = load_backbone(f"{arch}{word}/{tmp_path}/weights.pt", device="cpu")
    assert torch.equal(loaded.encode_images(images(2, size)), features)


@pytest.mark.slow
def test_siglip_wants_its_own_preprocessing():
    siglip = load_backbone("ViT-B-16-SigLIP/random", device="cpu")
    assert siglip.preprocess.resize_mode == "squash"
    assert siglip.preprocess.mean == (0.5, 0.5, 0.5)
    tokens = torch.randint(2, 1000, (2, 64))
    out = siglip.encode_prompt_embeddings(siglip.embed_tokens(tokens), tokens)
    torch.testing.assert_close(out, siglip.model.encode_text(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.network
def test_openai_weights():
    backbone = load_backbone("ViT-B/32", device="cpu")
    assert backbone.embed_dim == 512
    assert any(type(module).__name__ == "QuickGELU" for module in backbone.model.modules())
    assert backbone.logit_scale == pytest.approx(100, abs=0.1)


def test_weights_that_are_read_are_not_drawn_first():
    class Draws(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func.overloadpacket in (torch.ops.aten.normal_, torch.ops.aten.uniform_)
            return func(*args, **kwargs or {})

    with Draws() as read:
        load_backbone("demo", device="cpu")
    assert read.count == 0
    with Draws() as drawn:
        load_backbone("RN50/random", device="cpu")
    assert drawn.count > 10
