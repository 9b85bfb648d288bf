"""Seconds of phenaki-pytorch, alone in a process that needs no JAX; `peers.py` runs it.

    python benchmarks/peers_torch.py OPTIONS OUTPUT

OPTIONS is JSON: "repeats", "steps" of sampling, "text" tokens, and "guided", the title of the
sampled clip. OUTPUT is that of peers_ours.py.
"""

import importlib
import json
import os
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path


def main(options, output: Path):
    """Times the cases one after the other."""
    repeats, seconds = options["repeats"], {}
    rates = [matmul_rate(repeats)]
    for title, function in cases(options).items():
        seconds[title] = timed(repeats, function)
        rates.append(matmul_rate(repeats))
    versions = {name: metadata.version(name) for name in ("torch", "phenaki-pytorch")}
    output.write_text(json.dumps(dict(seconds=seconds, matmul=rates, versions=versions)))


def timed(repeats, function):
    """Seconds of each call but the first."""
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return found[1:]


def matmul_rate(repeats, size=3072):
    """FLOP/s of a square product, as in speed.py."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    a = torch.ones(size, size)
    return 2 * size**3 / statistics.median(timed(repeats, lambda: a @ a))


def cases(options):
    """{title of speed.py: a function that does the same with the peer}, at the same sizes."""
    import torch

    import_torchvision()
    from phenaki_pytorch import CViViT, MaskGit, Phenaki
    from phenaki_pytorch.t5 import DEFAULT_T5_NAME, T5_CONFIGS
    from transformers import T5Config

    torch.manual_seed(0)
    tokenizer = CViViT(
        dim=512,
        codebook_size=8192,
        image_size=128,
        patch_size=8,
        temporal_patch_size=2,
        spatial_depth=4,
        temporal_depth=4,
        dim_head=64,
        heads=8,
        use_vgg_and_gan=False,
        lookup_free_quantization=False,  # a codebook of vectors, as the paper's
    )
    video = torch.rand(1, 3, 11, 128, 128)
    # Otherwise the peer would download the configuration to know its width.
    T5_CONFIGS[DEFAULT_T5_NAME] = dict(config=T5Config(d_model=512))
    model = Phenaki(
        cvivit=tokenizer,
        maskgit=MaskGit(
            dim=512, num_tokens=8192, max_seq_len=1536, dim_context=512, depth=6, heads=8
        ),
        steps=options["steps"],
        text_embed_dim=512,
        cond_drop_prob=0.1,
    )
    text = torch.randn(1, options["text"], 512)
    model.encode_texts = lambda texts, output_device=None: text
    with torch.no_grad():
        tokens = tokenizer(video, return_only_codebook_ids=True)

    @torch.inference_mode()
    def encode():
        tokenizer.eval()(video, return_only_codebook_ids=True)

    @torch.inference_mode()
    def decode():
        tokenizer.eval().decode_from_codebook_indices(tokens.flatten(1))

    def trained(network, loss):
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.99))

        def step():
            network.train()
            optimizer.zero_grad()
            loss().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()

        return step

    return {
        "C-ViViT encode, 1 clip": encode,
        "C-ViViT decode, 1 clip": decode,
        "C-ViViT train step, 1 clip": trained(tokenizer, lambda: tokenizer(video)),
        "MaskGIT 512x6 train step, 1 clip": trained(
            model.maskgit, lambda: model(video_codebook_ids=tokens, text_embeds=text)
        ),
        options["guided"]: lambda: model.sample(texts=["a clip"], num_frames=11, cond_scale=3.0),
    }


def import_torchvision():
    """Imports torchvision, which the peer imports without need.

    Its CUDA wheel needs operators that a CPU build of torch lacks: they are declared first.
    """
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for name in ("nms", "qnms"):
            library.define(name + boxes)
        importlib.import_module("torchvision")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
