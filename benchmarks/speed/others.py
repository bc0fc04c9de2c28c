"""What other projects take for the same pictures, each in an environment of its own.

``pipeline.py --other PYTHON`` runs this file by the Python of such an environment, which has
infinity-emb or clip-retrieval and need not have clip_adapter. The weights are random. It says on
one line what was found, then answers every line that it reads with the number of features made.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

MODEL = "ViT-B-32"


def infinity(folder: Path, paths: Sequence[Path], workers: int, batch: int) -> Callable[[], int]:
    """infinity-emb's engine in this process, as its manual has it, given the files' bytes.

    It has threads of its own, and not ``workers``.
    """
    from infinity_emb import EngineArgs, SyncEngineArray
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    # No text is embedded: the smallest vocabulary that the tokenizer takes will do.
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    CLIPModel(CLIPConfig()).save_pretrained(folder)  # ViT-B-32 is what it describes
    engine = SyncEngineArray.from_args(
        [EngineArgs(model_name_or_path=str(folder), batch_size=batch, model_warmup=False)]
    )

    def run() -> int:
        data = [path.read_bytes() for path in paths]
        return len(engine.image_embed(model=str(folder), images=data).result()[0])

    return run


def retrieval(folder: Path, paths: Sequence[Path], workers: int, batch: int) -> Callable[[], int]:
    """clip-retrieval's reader, mapper and writer over a folder, as its worker joins them."""
    from unittest.mock import MagicMock

    import numpy as np
    import open_clip
    import torch
    from all_clip import load_clip
    from clip_retrieval.clip_inference.mapper import ClipMapper
    from clip_retrieval.clip_inference.reader import FilesReader
    from clip_retrieval.clip_inference.runner import Runner
    from clip_retrieval.clip_inference.writer import NumpyWriter

    weights, pictures = folder / "weights.pt", folder / "pictures"
    torch.save(open_clip.create_model(MODEL).state_dict(), weights)
    pictures.mkdir()
    for path in paths:
        (pictures / path.name).symlink_to(path.absolute())
    model = f"open_clip:{MODEL}/{weights}"
    loaded = {"clip_model": model, "use_jit": False, "clip_cache_path": None}
    _, transform, tokens = load_clip(**loaded, warmup_batch_size=1)
    kinds = {"enable_image": True, "enable_text": False, "enable_metadata": False}
    rest = {"use_mclip": False, "mclip_model": "", "warmup_batch_size": 1}

    def run() -> int:
        with tempfile.TemporaryDirectory() as out:
            Runner(
                lambda sampler: FilesReader(
                    sampler, transform, tokens, str(pictures), batch, workers, **kinds
                ),
                lambda: ClipMapper(**kinds, **loaded, **rest),
                lambda part: NumpyWriter(part, out, **kinds, output_partition_count=1),
                lambda part: MagicMock(),  # its own logger starts a process, in half a minute
                output_partition_count=1,
            )(0)
            return sum(len(np.load(file)) for file in Path(out, "img_emb").glob("*.npy"))

    return run


OTHERS = {"infinity-emb": infinity, "clip-retrieval": retrieval}


def serve(listing: Path, workers: int, batch: int) -> None:
    """Say what is installed here; then embed the files named in ``listing`` for every line.

    What is made lies beside ``listing``, and who started this removes it.
    """
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what they print is no answer
    paths = [Path(line) for line in listing.read_text().splitlines()]
    found = [name for name in OTHERS if importlib.util.find_spec(name.replace("-", "_"))]
    if len(found) != 1:
        sys.exit(f"Found: {found}. Allowed: an environment with one of {', '.join(OTHERS)}.")
    run = OTHERS[found[0]](listing.parent, paths, workers, batch)
    print(f"{found[0]} {version(found[0])}", file=told, flush=True)
    try:
        for _ in sys.stdin:
            print(run(), file=told, flush=True)
    except Exception:
        traceback.print_exc()
        os._exit(1)  # engines keep threads, which would wait for ever
    os._exit(0)


@contextlib.contextmanager
def other(
    python: str, paths: Sequence[Path], workers: int, batch: int
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Start this file by ``python``: what it found, and a call that embeds ``paths`` by it."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder, "pictures.txt")
        listing.write_text("".join(f"{path.absolute()}\n" for path in paths))
        command = [python, __file__, str(listing), str(workers), str(batch)]
        within = os.environ | {"TMPDIR": folder}  # what it leaves behind goes too
        with subprocess.Popen(
            command, env=within, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            asked, told = process.stdin, process.stdout
            assert asked is not None
            assert told is not None
            name = told.readline().strip()

            def call() -> None:
                print(file=asked, flush=True)
                if (made := told.readline().strip()) != str(len(paths)):
                    raise RuntimeError(f"{name or command} made {made or 'no'} features")

            try:
                yield name, call
            finally:
                process.kill()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
