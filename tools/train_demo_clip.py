"""Trains the small CLIP that the package ships as the backbone ``demo``.

    python tools/train_demo_clip.py --out src/clip_adapter/backbones/demo_weights

The architecture is ``tools/demo_clip.json``, in open_clip's own form; the data is the rendered
world of ``tools/training_world.py``; the loss is CLIP's. In the layout that open_clip loads as
``local-dir:FOLDER`` it writes ``open_clip_config.json`` and ``open_clip_model.safetensors``
(float16), and beside them ``training.json``, the record of the run. The same seed, thread count
and versions give the same weights; the shipped ones were made with the defaults. About 15 minutes
of one free core; ``--threads 2`` is faster, and differs in the last digits.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor

from training_world import render_pretraining

HERE = Path(__file__).resolve().parent
MAX_LOGIT_SCALE = math.log(100)
CHUNK = 2000
SHIFT = 4


def render_all(n: int, seed: int, workers: int) -> tuple[np.ndarray, list[str]]:
    """Renders ``n`` pictures (n, S, S, 3) and captions in parallel; the order is fixed."""
    starts = range(0, n, CHUNK)
    jobs = [(min(CHUNK, n - start), seed, start) for start in starts]
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(_render, jobs))
    captions = [caption for _, part in parts for caption in part]
    return np.concatenate([pictures for pictures, _ in parts]), captions


def _render(job: tuple[int, int, int]) -> tuple[np.ndarray, list[str]]:
    n, seed, start = job
    return render_pretraining(n, seed, start=start)


def augment(pictures: Tensor, mean: Tensor, std: Tensor, rng: torch.Generator) -> Tensor:
    """uint8 pictures (B, S, S, 3) -> normalised (B, 3, S, S), shifted, relit and a little noisy."""
    b, s, _, _ = pictures.shape
    dy, dx = torch.randint(-SHIFT, SHIFT + 1, (2, b, 1), generator=rng)
    rows, cols = ((shift + torch.arange(s)).clamp(0, s - 1) for shift in (dy, dx))
    shifted = pictures[torch.arange(b)[:, None, None], rows[:, :, None], cols[:, None, :]]
    x = shifted.permute(0, 3, 1, 2).float() / 255
    light = 1 + 0.2 * (2 * torch.rand(b, 1, 1, 1, generator=rng) - 1)
    light = light + 0.06 * torch.randn(b, 3, 1, 1, generator=rng)
    noise = 0.05 * torch.rand(b, 1, 1, 1, generator=rng)
    x = (x * light + noise * torch.randn(x.shape, generator=rng)).clamp(0, 1)
    return (x - mean) / std


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices only; not for gains, biases, embeddings and the logit scale."""
    decay, plain = [], []
    for name, parameter in model.named_parameters():
        (plain if parameter.ndim < 2 or "embedding" in name else decay).append(parameter)
    return [
        {"params": decay, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def retrieval(model: CLIP, pictures: Tensor, tokens: Tensor) -> dict[str, float]:
    """Top-1 retrieval in groups of 250 held-out pairs, in percent, both ways."""
    hits = torch.zeros(2)
    groups = list(zip(pictures.split(250), tokens.split(250), strict=True))
    model.eval()
    with torch.no_grad():
        for x, t in groups:
            scores = model.encode_image(x, normalize=True) @ model.encode_text(t, normalize=True).T
            truth = torch.arange(len(x))
            hits += torch.stack([(scores.argmax(d) == truth).float().mean() for d in (1, 0)])
    to_text, to_image = (100 * hits / len(groups)).tolist()
    return {"image_to_text": round(to_text, 2), "text_to_image": round(to_image, 2)}


def main() -> None:
    """Renders, trains, measures and writes."""
    parser = argparse.ArgumentParser(description="Trains the demo CLIP.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the three files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=48_000)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--config", type=Path, default=HERE / "demo_clip.json")
    args = parser.parse_args()

    began = time.perf_counter()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    config = json.loads(args.config.read_text())
    model = CLIP(**config["model_cfg"])
    tokenizer = open_clip.SimpleTokenizer(
        context_length=config["model_cfg"]["text_cfg"]["context_length"]
    )
    mean, std = (torch.tensor(config["preprocess_cfg"][k]).view(3, 1, 1) for k in ("mean", "std"))

    held_out = 2000
    pictures, captions = render_all(args.pictures + held_out, args.seed, args.threads)
    images, tokens = torch.from_numpy(pictures), tokenizer(captions)
    print(f"rendered {len(images)} pictures in {time.perf_counter() - began:.0f} s", flush=True)

    optimizer = torch.optim.AdamW(
        parameter_groups(model, args.weight_decay), lr=args.lr, betas=(0.9, 0.98), eps=1e-6
    )
    rng = torch.Generator().manual_seed(args.seed)
    loss_of, total, running = open_clip.ClipLoss(), args.steps, 0.0
    for step in range(total):
        if step < args.warmup:
            factor = (step + 1) / args.warmup
        else:
            factor = 0.5 + 0.5 * math.cos(math.pi * (step - args.warmup) / (total - args.warmup))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * factor
        batch = torch.randint(args.pictures, (args.batch,), generator=rng)
        x = augment(images[batch], mean, std, rng)
        optimizer.zero_grad()
        loss = loss_of(
            model.encode_image(x, normalize=True),
            model.encode_text(tokens[batch], normalize=True),
            model.logit_scale.exp(),
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            elapsed = time.perf_counter() - began
            print(f"step {step + 1}/{total} loss {running:.3f} {elapsed:.0f} s", flush=True)

    plain = images[args.pictures :].permute(0, 3, 1, 2).float() / 255
    scores = retrieval(model, (plain - mean) / std, tokens[args.pictures :])
    record = {
        **{k: v for k, v in vars(args).items() if k not in ("out", "config")},
        "final_loss": round(running, 4),
        "held_out_retrieval_of_250": scores,
        "logit_scale": round(model.logit_scale.exp().item(), 3),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.perf_counter() - began),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "numpy": np.__version__,
        },
    }
    write(args.out, model, config, record)
    print(json.dumps(record, indent=2))


def write(out: Path, model: CLIP, config: dict, record: dict) -> None:
    """Writes the three files, each at once."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    part = out / "open_clip_model.safetensors.part"
    save_file(weights, part)
    part.chmod(0o644)
    os.replace(part, out / "open_clip_model.safetensors")
    for name, content in (("open_clip_config.json", config), ("training.json", record)):
        part = out / f"{name}.part"
        part.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(part, out / name)


if __name__ == "__main__":
    main()
