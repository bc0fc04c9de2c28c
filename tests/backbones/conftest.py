import shutil
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def folder(make_folder):
    return make_folder()


@pytest.fixture(scope="session")
def tiny(folder):
    from clip_adapter.backbones import load_backbone

    return load_backbone(str(folder), device="cpu")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of its own: ``files`` by size, ``source`` of their content, what was ``asked``.

    With ``error`` it fails, and with ``wait`` it does not answer.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    here = SimpleNamespace(
        files={}, source=None, asked=[], error=None, wait=None, cache=tmp_path / "hub"
    )

    def metadata(url, **options):
        name = url.rpartition("/")[2]
        here.asked.append(name)
        if here.wait:
            here.wait.wait(10)
        if here.error:
            raise here.error
        if name not in here.files:
            raise EntryNotFoundError(f"no {name}")
        return SimpleNamespace(size=here.files[name], commit_hash="0" * 40)

    def path_of(repo, name):
        return here.cache / repo.replace("/", "--") / name

    def fetch(repo, name):
        path = path_of(repo, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(here.source / name, path) if here.source else path.touch() or path)

    def cached(repo, name, revision=None):
        return str(path_of(repo, name)) if path_of(repo, name).exists() else None

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    return here
