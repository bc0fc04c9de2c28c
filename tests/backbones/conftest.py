import pytest


@pytest.fixture(scope="session")
def folder(make_folder):
    return make_folder()


@pytest.fixture(scope="session")
def tiny(folder):
    from clip_adapter.backbones import load_backbone

    return load_backbone(str(folder), device="cpu")
