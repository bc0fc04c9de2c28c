"""Fetching weights, and what to tell a user whose machine cannot."""

from __future__ import annotations

from pathlib import PurePosixPath

from clip_adapter.backbones.names import CONFIG_FILE, OFFLINE_HINT
from clip_adapter.errors import BackboneError

WEIGHTS_FILE = "open_clip_model.safetensors"  # what open_clip asks a repository for first


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong, without the address of every retry."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    if "size mismatch" in str(error):
        line += f" {next(text for text in lines if 'size mismatch' in text)}"
    return line if len(line) <= 300 else line[:300] + "..."


def fetch_tag(arch: str, tag: str) -> str:
    """The path of the checkpoint of ``arch/tag``, fetched when it is not in the hub's cache.

    Raises:
        BackboneError: it cannot be fetched; the message says how to bring it here.
    """
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    entry = get_pretrained_cfg(arch, tag)
    try:
        return download_pretrained(entry)
    except Exception as error:  # requests, hub and file system raise errors of many kinds
        repo, _, file = entry.get("hf_hub", "").rpartition("/")
        use = f"{_exact_arch(arch, bool(entry.get('quick_gelu')))}//full/path/of/the/file"
        raise _unreachable(f"{arch}/{tag}", repo, [file or WEIGHTS_FILE], use, error) from error


def fetch_repository(repo: str) -> None:
    """Bring configuration and weights of a hub repository into the hub's cache.

    Raises:
        BackboneError: they cannot be fetched; the message says how to bring them here.
    """
    from open_clip.pretrained import download_pretrained_from_hf

    try:
        download_pretrained_from_hf(repo, filename=CONFIG_FILE)
        download_pretrained_from_hf(repo)
    except Exception as error:  # requests, hub and file system raise errors of many kinds
        files = [CONFIG_FILE, WEIGHTS_FILE]
        raise _unreachable(f"hf-hub:{repo}", repo, files, "local-dir:DIR", error) from error


def _exact_arch(arch: str, quick_gelu: bool) -> str:
    """The architecture under which a bare file computes what the tag computes."""
    import open_clip

    config = open_clip.get_model_config(arch) or {}
    other = f"{arch}-quickgelu"
    wanted = quick_gelu and not config.get("quick_gelu")
    return other if wanted and other in open_clip.list_models() else arch


def _unreachable(
    name: str, repo: str, files: list[str], use: str, error: Exception
) -> BackboneError:
    from huggingface_hub.constants import HF_HUB_CACHE

    wanted = " ".join(str(PurePosixPath(file)) for file in files)
    folder = f"models--{repo.replace('/', '--')}"
    return BackboneError(
        f"The weights of {name} could not be fetched from the Hugging Face hub "
        f"(repository {repo}): {reason_of(error)}",
        hint=f"On a machine with internet run\n"
        f"    hf download {repo} {wanted} --local-dir DIR\n"
        f"  copy DIR here and use\n"
        f"    --backbone {use}\n"
        f"  or copy its hub cache folder {folder} into {HF_HUB_CACHE}. {OFFLINE_HINT}",
    )
