"""Seconds compared with phenaki-pytorch at the paper's sizes: in one run, in turn, on equal cores.

    pip install -e '.[peers]'
    python benchmarks/peers.py --repeats=5

C-ViViT on one clip of 11 x 128 x 128 (encode, decode, a train step of L_2 + L_VQ) and a MaskGIT 512
wide of 6 layers over its 1536 tokens (a train step, a guided clip in 12 steps), in float32, with
random weights and clips. The peer has its own process, which waits while ours is timed, so that
neither competes with the other's threads. Prints a table and writes
benchmarks/results/peers_DEVICE.json. "At most" is the ratio if ours ran at the machine's own matmul
rate throughout.
"""

import contextlib
import importlib
import multiprocessing
import os
import statistics
import time

import jax
import record
import speed
from absl import flags

from phenaki import cli
from phenaki.errors import UserError

FLAGS = flags.FLAGS
PEER = "phenaki-pytorch"


def main(argv):
    """Times every case that both have, in turn."""
    del argv
    peer, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    there.close()  # so that `recv` ends if the other process dies
    theirs = peer.recv()
    if isinstance(theirs, str):
        raise UserError(f"{theirs}: the peer is missing. Run pip install -e '.[peers]'.")
    print(f"{'seconds; medians in turn':34} {'ours':>9} {'peer':>9} {'ratio':>7} {'at most':>8}")
    rows, rate = [], []
    for name, function, arguments, flops in speed.cases():
        if name not in theirs:
            continue
        ours, its = in_turn(
            lambda function=function, arguments=arguments: seconds(
                lambda: jax.block_until_ready(function(*arguments))
            ),
            lambda name=name: answer(peer, name),
        )
        rate.append(speed.matmul_rate())
        limit = its * statistics.median(rate) / flops  # ours at the matmul rate throughout
        rows.append(dict(case=name, ours=ours, peer=its, ratio=its / ours, limit=limit))
        print(f"{name:34} {ours:9.3f} {its:9.3f} {its / ours:7.2f} {limit:8.2f}", flush=True)
    missing = set(theirs) - {row["case"] for row in rows}
    assert not missing, missing
    print(f"matmul {statistics.median(rate) / 1e9:.0f} GFLOP/s")
    record.write(
        FLAGS.output or f"benchmarks/results/peers_{jax.default_backend()}.json",
        ("jax", "jaxlib", "flax", "torch", PEER),
        device=jax.devices()[0].device_kind,
        matmul_gflops=[r / 1e9 for r in rate],
        rows=rows,
    )


def in_turn(ours, theirs):
    """Medians of both results over alternating calls; the first two of each do not count."""
    kept = [(ours(), theirs()) for _ in range(FLAGS.repeats + 2)]
    return tuple(map(statistics.median, zip(*kept[2:], strict=True)))


def seconds(function) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def answer(connection, name) -> float:
    """The peer's seconds for one call of a case."""
    connection.send(name)
    return connection.recv()


def serve(connection):
    """The peer's process: receives names of cases, runs them and sends their seconds."""
    try:
        cases = peer_cases()
    except ImportError as error:
        connection.send(str(error))
        return
    connection.send(list(cases))
    with contextlib.suppress(EOFError):  # the other process has ended
        while True:
            connection.send(seconds(cases[connection.recv()]))


def peer_cases():
    """{case of speed.py: a function that does the same with the peer}, at the same sizes."""
    import torch

    import_torchvision()
    from phenaki_pytorch import CViViT, MaskGit, Phenaki
    from phenaki_pytorch.t5 import DEFAULT_T5_NAME, T5_CONFIGS
    from transformers import T5Config

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
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
        steps=speed.STEPS,
        text_embed_dim=512,
        cond_drop_prob=0.1,
    )
    text = torch.randn(1, speed.TEXT, 512)
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
        f"MaskGIT 512x6 guided clip, {speed.STEPS} steps": lambda: model.sample(
            texts=["a clip"], num_frames=11, cond_scale=3.0
        ),
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
    cli.run(main)
