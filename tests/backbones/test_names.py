import sys
from pathlib import Path

import pytest

from clip_adapter.backbones import catalog
from clip_adapter.backbones.names import files_of, origin_of
from clip_adapter.errors import BackboneError, UsageError


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("RN50/openai", "RN50/openai"),
        ("RN50", "RN50/openai"),
        ("ViT-B/32", "ViT-B-32/openai"),
        ("ViT-B-32", "ViT-B-32/openai"),
        ("ViT-B/32/laion2b_e16", "ViT-B-32/laion2b_e16"),
        ("ViT-B-32/laion2b-E16", "ViT-B-32/laion2b_e16"),
        ("ViT-L/14@336px", "ViT-L-14-336/openai"),
    ],
)
def test_tags_and_the_spelling_of_the_field(name, canonical):
    source = origin_of(name)
    assert (source.kind, source.name) == ("tag", canonical)
    assert f"{source.arch}/{source.target}" == canonical


def test_random_and_hub():
    assert origin_of("ViT-H-16/random").kind == "random"
    assert origin_of("hf-hub:org/repo-1.0").target == "org/repo-1.0"
    with pytest.raises(UsageError, match="hub repository"):
        origin_of("hf-hub:repo")


def test_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"")
    assert origin_of("RN50/./w.safetensors").target == "./w.safetensors"
    assert origin_of(f"RN50/{tmp_path}/w.safetensors").target == f"{tmp_path}/w.safetensors"
    assert origin_of("RN50/w.safetensors").kind == "file"
    with pytest.raises(BackboneError, match="No checkpoint file"):
        origin_of("RN50/./gone.safetensors")
    with pytest.raises(BackboneError, match="No checkpoint file"):
        origin_of("RN50//gone/file")
    (tmp_path / "clip").mkdir()
    for name in ("clip", "local-dir:clip", str(tmp_path / "clip")):
        with pytest.raises(BackboneError, match="open_clip_config"):
            origin_of(name)
    (tmp_path / "clip" / "open_clip_config.json").write_text("{}")
    assert origin_of("clip").name == "local-dir:clip"
    assert origin_of("local-dir:clip").target == "clip"


def test_the_files_of_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"")
    assert files_of("RN50/./w.safetensors") == [Path("w.safetensors")]
    assert files_of(f"RN50/{file}") == [file]
    (tmp_path / "clip").mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors", "README.md"):
        (tmp_path / "clip" / name).write_bytes(b"")
    names = ["open_clip_config.json", "open_clip_model.safetensors"]
    for name in ("clip", "local-dir:clip", str(tmp_path / "clip")):
        assert [path.name for path in files_of(name)] == names
    (tmp_path / "repo").write_bytes(b"")  # called as the one on the hub
    for name in ("", "demo", "RN50/openai", "RN50", "hf-hub:org/repo", "RN50/./gone.pt"):
        assert files_of(name) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("RN51/openai", "Did you mean 'RN50'"),
        ("RN50/opneai", "Did you mean 'openai'"),
        ("ViT-H-16", "weights must be named"),
        ("ViT-H-16/", "weights must be named"),
        ("nothing like it", "Unknown backbone"),
        ("", "Unknown backbone"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(name, hint):
    with pytest.raises(UsageError, match=hint):
        origin_of(name)


@pytest.mark.parametrize("name", ["./nofile.pt", "nofile.safetensors", "/no/such/file", "~/w"])
def test_a_file_without_architecture_is_told_the_form(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneError, match=r"does not exist(.|\n)*ARCH/\./FILE"):
        origin_of(name)
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(BackboneError, match=r"without its architecture(.|\n)*ARCH/\./FILE"):
        origin_of("./w.pt")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("RN50/./v.safetensors", "w.safetensors"),
        ("RN50@gelu/w.safetensor.pt", "w.safetensors"),
        ("local-dir:photo", "photos"),
    ],
)
def test_files_that_are_not_there_are_answered_with_near_ones(name, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").touch()
    (tmp_path / "photos").mkdir()
    with pytest.raises(BackboneError, match=f"Did you mean '{near}'"):
        origin_of(name)


def test_the_tables_are_those_of_open_clip():
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    read = catalog._unimported()
    assert set(read.configs) >= set(open_clip.list_models())
    for arch in open_clip.list_models():
        assert read.configs[arch] == open_clip.get_model_config(arch)
        tags = open_clip.list_pretrained_tags_by_model(arch)
        assert list(read.weights.get(arch, ())) == tags
        for tag in tags:
            assert read.weights[arch][tag] == get_pretrained_cfg(arch, tag)


def test_another_layout_of_open_clip_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "open_clip")
    monkeypatch.setattr(catalog, "_unimported", lambda: 1 / 0)
    assert "openai" in catalog.catalog().weights["ViT-B-32"]
