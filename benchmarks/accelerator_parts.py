"""What benchmarks/accelerator.py measures: a function per part, which returns its figures."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import accelerator_kernels
import jax
import jax.numpy as jnp
import timing
from accelerator_kernels import Attention
from jax.tree_util import keystr, tree_map_with_path
from ml_collections import ConfigDict

from configs import cvivit, maskgit
from phenaki.planning import chips, programs, trace
from phenaki.train.maskgit import with_tokenizer


class Sizes(NamedTuple):
    """Everything that is large on an accelerator, and tiny where the script is only tried."""

    tokenizer: str  # variant of configs/cvivit.py
    generator: str  # of configs/maskgit.py
    product: int  # rows and columns of a matrix product
    attention: tuple[Attention, ...]
    rows: dict[str, int]  # samples to begin with where the largest batch is searched
    clips: int  # of the tokenizer
    steps: int  # of a guided clip
    repeats: int


SIZES = {
    "paper": Sizes(
        tokenizer="mit",
        generator="t2v",
        product=8192,
        attention=(
            Attention("1536 tokens, dropout", 128, 1536, 1536, 64, rate=0.1),
            Attention("128 text tokens, mask, dropout", 128, 1536, 128, 64, rate=0.1, mask=True),
            Attention("1536 tokens, padding hidden", 128, 1536, 1536, 64, mask=True),
            Attention("2304 tokens, width 48, dropout", 64, 2304, 2304, 48, rate=0.1),
            Attention("1536 tokens", 128, 1536, 1536, 64),
        ),
        rows=dict(maskgit=128, tokenizer=64),
        clips=16,
        steps=48,
        repeats=3,
    ),
    "tiny": Sizes(
        tokenizer="mini",
        generator="mini",
        product=64,
        attention=(Attention("24 tokens, mask, dropout", 2, 24, 20, 16, rate=0.1, mask=True),),
        rows=dict(maskgit=2, tokenizer=2),
        clips=2,
        steps=2,
        repeats=1,
    ),
}


def matmul(sizes: Sizes) -> dict[str, Any]:
    """Ceilings: TFLOP/s of a bfloat16 product, GB/s of a copy (read and written)."""
    n = sizes.product
    a, b = (jax.random.normal(jax.random.key(i), (n, n), jnp.bfloat16) for i in range(2))
    product = timing.median_seconds(10 * sizes.repeats, jax.jit(jnp.matmul), a, b)
    copied = timing.median_seconds(10 * sizes.repeats, jax.jit(lambda x: -x), a)
    return dict(tflops=2 * n**3 / product / 1e12, copy_gb=2 * a.nbytes / copied / 1e9)


def kernels(sizes: Sizes) -> dict[str, Any]:
    """Attention as "auto" chooses it, compared with XLA's; the bar is an error of 0.01."""
    rows = [accelerator_kernels.measure(case, sizes.repeats) for case in sizes.attention]
    return dict(attention=rows, bar=0.01)


def maskgit_step(sizes: Sizes) -> dict[str, Any]:
    """The 1.8B network's train step, from pixels and cached captions; the bar is an MFU of 0.5."""
    return _train(_generator(sizes), sizes, bar=0.5)


def tokenizer_step(sizes: Sizes) -> dict[str, Any]:
    """C-ViViT's train step with every term of its objective; the bar is an MFU of 0.35."""
    return _train(_tokenizer(sizes), sizes, bar=0.35)


def sample(sizes: Sizes) -> dict[str, Any]:
    """Seconds of a guided clip, and frames per second of a story; the bars are 1 and 8."""
    config = _generator(sizes)
    config.sample.update(config.presets.videos)
    config.sample.steps = sizes.steps
    run = programs.workload(config)
    program, network = run.sampler(1), run.tokenizer
    params, tokens, ids, keys, traced = fill(program.inputs)
    generator: Any = run.generator
    masked = jnp.full_like(tokens, generator.mask_id)
    context = jnp.zeros((1, config.sample.context, run.spec.height, run.spec.width, 3))

    def pixels(params, tokens, ids):
        decoded = program.function(params, tokens, ids, keys, traced).tokens
        grid = decoded.reshape(1, *run.spec.grid())
        return network.apply({"params": params["tokenizer"]}, grid, method="decode")

    @jax.jit
    def window(params, context, masked, ids):
        known = network.apply({"params": params["tokenizer"]}, context, method="encode")
        known = known.reshape(1, -1)
        return pixels(params, masked.at[:, : known.shape[1]].set(known), ids)

    clip = timing.median_seconds(sizes.repeats, jax.jit(pixels), params, masked, ids)
    story = timing.median_seconds(sizes.repeats, window, params, context, masked, ids)
    new = run.spec.frames - config.sample.context
    return dict(steps=sizes.steps, clip_seconds=clip, clip_bar=1.0,
                story_frames_per_second=new / story, story_bar=8.0)  # fmt: skip


def tokenizer(sizes: Sizes) -> dict[str, Any]:
    """Frames per second of encoding and decoding."""
    run = programs.workload(_tokenizer(sizes))
    shape = (sizes.clips, run.spec.frames, run.spec.height, run.spec.width, 3)
    video = jax.random.uniform(jax.random.key(0), shape)
    shapes = jax.eval_shape(run.tokenizer.init, jax.random.key(0), video)
    params = fill(shapes)
    encode, decode = (jax.jit(functools.partial(run.tokenizer.apply, method=method))
                      for method in ("encode", "decode"))  # fmt: skip
    tokens = encode(params, video)
    return dict(
        clips=sizes.clips,
        encode=sizes.clips * shape[1] / timing.median_seconds(sizes.repeats, encode, params, video),
        decode=sizes.clips
        * shape[1]
        / timing.median_seconds(sizes.repeats, decode, params, tokens),
    )


def peer(sizes: Sizes) -> dict[str, Any]:
    """Frames per second of phenaki-pytorch's C-ViViT of the same sizes, in bfloat16."""
    try:
        import torch
        from phenaki_pytorch import CViViT
    except ImportError as error:
        return dict(missing=str(error))
    run = programs.workload(_tokenizer(sizes))
    fields = run.stored["tokenizer"]
    if fields["width"] % fields["heads"]:
        return dict(missing="the peer's heads divide its width")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = CViViT(
        dim=fields["width"], codebook_size=fields["codebook"],
        image_size=(run.spec.height, run.spec.width), patch_size=tuple(fields["patch"][1:]),
        temporal_patch_size=fields["patch"][0], spatial_depth=fields["space_depth"],
        temporal_depth=fields["time_depth"], dim_head=fields["width"] // fields["heads"],
        heads=fields["heads"], use_vgg_and_gan=False, lookup_free_quantization=False,
    ).to(device).eval()  # fmt: skip
    size = (sizes.clips, 3, run.spec.frames, run.spec.height, run.spec.width)
    video = torch.rand(size, device=device)

    def rate(call, x):
        def waited():
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
                call(x)
            if device == "cuda":
                torch.cuda.synchronize()

        return size[0] * size[2] / timing.median_seconds(sizes.repeats, waited)

    encode = functools.partial(network, return_only_codebook_ids=True)
    with torch.inference_mode():
        tokens = encode(video).flatten(1)
    return dict(clips=size[0], device=device, encode=rate(encode, video),
                decode=rate(network.decode_from_codebook_indices, tokens))  # fmt: skip


PARTS: dict[str, Callable[[Sizes], dict[str, Any]]] = dict(
    matmul=matmul, kernels=kernels, maskgit=maskgit_step, cvivit=tokenizer_step, sample=sample,
    tokenizer=tokenizer, peer=peer,
)  # fmt: skip


def _tokenizer(sizes):
    config = cvivit.get_config(sizes.tokenizer)
    config.dtype, config.unroll = "bfloat16", 1
    return config


def _generator(sizes):
    config = with_tokenizer(maskgit.get_config(sizes.generator), _tokenizer(sizes), "")
    config.dtype, config.unroll = "bfloat16", 1
    config.text.cached = True  # captions are embedded once, not in every step
    return config


def _train(config: ConfigDict, sizes: Sizes, bar: float) -> dict[str, Any]:
    run = programs.workload(config)
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)
    start = time.perf_counter()
    rows, compiled, program, need = fit(run, sizes.rows[run.kind], limit)
    compiling = time.perf_counter() - start
    state, *others = fill(program.inputs)
    finite = []

    def step():
        nonlocal state
        state, metrics = compiled(state, *others)
        finite.append(metrics["loss/total"] if "loss/total" in metrics else metrics["loss"])
        return metrics

    seconds = timing.median_seconds(sizes.repeats, step)
    # Without recomputation, and with attention as plain products, whose FLOPs can be counted.
    plain = ConfigDict(run.stored | dict(attention="xla"))
    counted = programs.workload(plain).train_step({"video": 1}, remat="none")
    flops = rows * sum(trace.flops(counted.function, *counted.inputs).values())
    peak = next((c.flops for n, c in chips.GPUS.items() if n in jax.devices()[0].device_kind), None)
    return dict(
        clips=rows, seconds=seconds, compile_seconds=compiling, gib=need / 2**30,
        tflop=flops / 1e12, tflops=flops / seconds / 1e12,
        mfu=flops / seconds / peak if peak else None, bar=bar,
        finite=bool(jnp.isfinite(jnp.stack(finite)).all()),
    )  # fmt: skip


def fit(run: programs.Workload, rows: int, limit: float) -> tuple[int, Any, programs.Program, int]:
    """The largest batch that fits `limit` bytes, at most `rows`: (clips, compiled, program, bytes).

    What exceeds the state grows with the batch: a second program is compiled at most a few times.
    """
    while True:
        program = run.train_step({"video": rows})
        step = jax.jit(program.function, donate_argnums=0)
        compiled = step.lower(*program.inputs).compile()
        memory: Any = compiled.memory_analysis()
        state = memory.argument_size_in_bytes
        need = state + memory.temp_size_in_bytes
        if need <= limit or rows == 1:
            return rows, compiled, program, need
        rows = max(1, min(rows - 1, int(rows * max(limit - state, 0) / (need - state))))


def fill(shapes: Any) -> Any:
    """Arrays of such shapes with cheap random numbers, as one program; second moments positive."""

    def leaf(path, x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(0), x.shape)
        if x.ndim == 0 or x.dtype == bool:
            return jnp.ones(x.shape, x.dtype) if x.dtype == bool else jnp.zeros(x.shape, x.dtype)
        bits = jax.lax.iota(jnp.uint32, math.prod(x.shape)).reshape(x.shape) * jnp.uint32(
            0x9E3779B1
        )
        bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
        if jnp.issubdtype(x.dtype, jnp.integer):
            return ((bits >> 8) % 100).astype(x.dtype)
        uniform = (bits >> 8).astype(jnp.float32) / 2**24
        return (0.1 * (uniform if ".nu" in keystr(path) else uniform - 0.5)).astype(x.dtype)

    return jax.jit(lambda: tree_map_with_path(leaf, shapes))()
