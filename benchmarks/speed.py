"""Seconds of the networks at the paper's sizes, and the fraction of the machine's matmul rate.

    make bench                       # or: python benchmarks/speed.py --repeats=5

Prints a table and writes benchmarks/results/NAME.json with the hardware and the versions. The
matmul rate is measured in the same run, between the cases; the fraction is model FLOPs (2 per
multiply-add, from the shapes) over seconds over that rate.
"""

import functools
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import record
import timing
from absl import flags

from configs import cvivit as cvivit_config
from configs import maskgit as maskgit_config
from phenaki import cli
from phenaki.blocks.attention import attend
from phenaki.io import heap
from phenaki.losses import masked_tokens
from phenaki.losses.tokenizer import TokenizerLoss
from phenaki.models import factory
from phenaki.models.maskgit import MaskGIT
from phenaki.sampling import decode, draws, guidance, orders, schedules, views
from phenaki.train import maskgit, optim, state, tokenizer
from phenaki.types import Text

REPEATS = flags.DEFINE_integer(
    "repeats", 5, "timed calls per case; the median counts", lower_bound=1
)
OUTPUT = flags.DEFINE_string("output", None, "default: benchmarks/results/DEVICE.json")
DTYPE = flags.DEFINE_enum("dtype", "float32", list(factory.DTYPES), "compute type")

TEXT = 128  # tokens of text
STEPS = 12  # of sampling
GUIDED = f"MaskGIT 512x6 guided clip, {STEPS} steps"
BEGUN = f"{GUIDED}, view=begun, cubic"
RELEASED = "MaskGIT 512x6 clip, sampler of the released model"
WIDE: dict[str, Any] = dict(width=512, depth=6, heads=8, mlp_dim=2048)


def main(argv):
    """Measures every case in turn."""
    del argv
    record.admit(OUTPUT.value)
    rate = [matmul_rate()]
    rows = []
    for name, function, arguments, flops in cases():
        seconds = median_seconds(function, *arguments)
        rate.append(matmul_rate())
        rows.append(dict(case=name, seconds=seconds, gflop=flops / 1e9))
    peak = statistics.median(rate)
    for row in rows:
        row["share"] = row["gflop"] * 1e9 / row["seconds"] / peak
    print(f"{'case':34} {'seconds':>9} {'GFLOP':>8} {'of matmul rate':>15}")
    for row in rows:
        share = f"{100 * row['share']:14.0f}%"
        print(f"{row['case']:34} {row['seconds']:9.3f} {row['gflop']:8.0f} {share}")
    print(f"matmul {peak / 1e9:.0f} GFLOP/s, from {min(rate) / 1e9:.0f} to {max(rate) / 1e9:.0f}")
    record.write(
        OUTPUT.value or f"benchmarks/results/{jax.default_backend()}_{DTYPE.value}.json",
        ("jax", "jaxlib", "flax"),
        device=jax.devices()[0].device_kind,
        dtype=DTYPE.value,
        matmul_gflops=[r / 1e9 for r in rate],
        rows=rows,
    )


def cases():
    """Yields (name, function, arguments, FLOPs) one by one, so that memory is freed in between."""
    heap.keep_freed()  # as every command does; another program may run the cases, too
    config = cvivit_config.get_config("mit")
    config.dtype, config.unroll = DTYPE.value, 4
    model = factory.tokenizer(config)
    spec = factory.video_spec(config)
    video = jax.random.uniform(jax.random.key(0), (1, spec.frames, spec.height, spec.width, 3))
    params = jax.jit(model.init)(jax.random.key(0), video)["params"]

    def call(method):
        return jax.jit(lambda params, x: model.apply({"params": params}, x, method=method))

    tokens = call("encode")(params, video)
    side = tokenizer_flops(config)
    yield "C-ViViT encode, 1 clip", call("encode"), (params, video), side
    yield "C-ViViT decode, 1 clip", call("decode"), (params, tokens), side
    optimizer = optim.adamw(lambda _: 1e-4, b1=0.9, b2=0.99, weight_decay=1e-4, clip=10.0)
    loss = TokenizerLoss(model, weights={"l2": 1.0, "vq": 1.0}, beta=0.25)
    step = tokenizer.TokenizerStep(
        loss, optimizer, ema=0.999, accumulate=1, usage_window=100, revive_until=0
    )
    batch = {"video": {"video": (video * 255).astype(jnp.uint8)}}
    trained = state.create(params, optimizer, tokenizer.initial_extra(loss))
    yield (
        "C-ViViT train step, 1 clip",
        jax.jit(step),
        (trained, {}, batch, jax.random.key(1)),
        6 * side,
    )
    del trained
    yield from maskgit_cases(
        tokens.reshape(1, -1), spec, functools.partial(call("decode"), params), side
    )


def maskgit_cases(tokens, spec, to_video, side):
    """The 512-wide network with 1536 tokens: train step, one guided forward, a sampled clip.

    `to_video` maps tokens [b t m n] to pixels in `side` FLOPs.
    """
    model = MaskGIT(
        grid=spec.grid(), codebook=8192, text_dim=512, dropout=0.0, attention_dropout=0.0,
        dtype=factory.DTYPES[DTYPE.value], unroll=WIDE["depth"], **WIDE,
    )  # fmt: skip
    text = Text(jax.random.normal(jax.random.key(2), (1, TEXT, 512)), jnp.ones((1, TEXT), bool))
    params = jax.jit(model.init)(jax.random.key(0), tokens, text)["params"]
    optimizer = optim.adamw(lambda _: 1e-4, b1=0.9, b2=0.99, weight_decay=1e-4, clip=10.0)
    step = maskgit.MaskGITStep(
        model,
        optimizer,
        encode=lambda _, part: part["tokens"],
        embed=lambda _, part: part["given"],
        drop_text=0.1,
        ema=0.999,
        accumulate=1,
    )
    batch = {"video": {"tokens": tokens, "given": text}}
    trained = state.create(params, optimizer)
    forward = maskgit_flops(tokens.shape[1])
    yield (
        "MaskGIT 512x6 train step, 1 clip",
        jax.jit(step),
        (trained, {}, batch, jax.random.key(1)),
        3 * forward,
    )
    yield from train_step_parts(tokens, trained, optimizer)
    masked = schedules.apply_mask(
        tokens, schedules.sample_mask(jax.random.key(3), tokens.shape), model.mask_id
    )
    both = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x)]), text)
    context = jax.jit(functools.partial(model.apply, method="context"))({"params": params}, both)

    @jax.jit
    def guided(params, masked, context):
        doubled = jnp.concatenate([masked, masked])
        logits: Any = model.apply({"params": params}, doubled, context=context)
        conditional, unconditional = jnp.split(logits, 2)
        return masked_tokens.masked_cross_entropy(
            guidance.guide(conditional, unconditional, 6.0), tokens, masked == tokens
        )

    yield "MaskGIT 512x6 guided forward", guided, (params, masked, context), 2 * forward

    def sampler(logits_of, **options):
        @jax.jit
        def sample(params, context, key):
            decoded = decode.decode(
                functools.partial(logits_of, params, context),
                jnp.full_like(tokens, model.mask_id),
                key[None],
                mask_id=model.mask_id,
                **options,
            )
            return to_video(decoded.tokens.reshape(1, *spec.grid()))

        return sample

    def guided_logits(params, context, tokens, _, places=None, valid=None):
        del valid
        twice = jnp.tile(tokens, (2, 1))
        doubled: Any = model.apply({"params": params}, twice, context=context, places=places)
        conditional, unconditional = jnp.split(doubled, 2)
        return guidance.guide(conditional, unconditional, 2.0)

    given = params, context, jax.random.key(6)
    sample = sampler(guided_logits, steps=STEPS, choice_temperature=4.0)
    yield GUIDED, sample, given, STEPS * 2 * forward + side
    nothing, per_frame = np.zeros(tokens.shape, bool), tokens.shape[1] // spec.grid()[0]
    schedule, ranks = schedules.SCHEDULES["cubic"], orders.ranks("middle", model.grid)
    counts, _ = decode.plan(STEPS, tokens.shape[1], schedule)
    seen = views.of(nothing, counts, ranks, per_frame)
    begun: dict[str, Any] = dict(steps=STEPS, schedule=schedule, ranks=ranks, views=seen)
    begun |= dict(choice_temperature=4.0, trace=False)
    flops = sum(maskgit_flops(len(frames) * per_frame) for frames in seen.frames)
    yield BEGUN, sampler(guided_logits, **begun), given, 2 * flops + side
    few: dict[str, Any] = maskgit_config.FEW_PASSES
    sample = sampler(
        lambda params, context, tokens, _: model.apply({"params": params}, tokens, context=context),
        schedule=schedules.SAMPLER_SCHEDULES[few["schedule"]],
        ranks=orders.ranks(few["order"], model.grid),
        narrow=functools.partial(draws.plausible, min_p=few["min_p"]),
        trace=False,
        **{name: few[name] for name in ("steps", "temperature", "choice_temperature")},
    )
    alone = jax.tree.map(lambda x: x[:, :1] if x.ndim > 2 else x[:1], context)
    given = params, alone, jax.random.key(6)
    yield RELEASED, sample, given, few["steps"] * forward + side


def train_step_parts(tokens, trained, optimizer):
    """Parts of that step other than dense layers: softmax, logits, optimiser."""
    length, heads, width, depth = tokens.shape[1], WIDE["heads"], WIDE["width"], WIDE["depth"]
    dtype = factory.DTYPES[DTYPE.value]
    x = jax.random.normal(jax.random.key(4), (1, length, heads, width // heads), dtype)

    @jax.jit
    @jax.grad
    def attention(x):
        for _ in range(depth):
            x = attend(x, x, x)
        return jnp.square(x).sum().astype(jnp.float32)

    yield "  of it, attention", attention, (x,), 3 * depth * 4 * length**2 * width
    table = trained.params["embedding"][:8192]
    rows = jax.random.normal(jax.random.key(5), (length, width))
    mask = jnp.ones(tokens.shape, bool)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def head(rows, table):
        logits = jnp.matmul(
            rows.astype(dtype), table.T.astype(dtype), preferred_element_type=jnp.float32
        )
        return masked_tokens.masked_cross_entropy(logits[None], tokens, mask)[0].mean()

    yield "  of it, logits and loss", head, (rows, table), 3 * 2 * length * width * 8192
    update = jax.jit(functools.partial(state.apply_gradients, optimizer=optimizer, ema=0.999))
    yield "  of it, optimiser and average", update, (trained, trained.params), 0


def transformer_flops(tokens, length, width, mlp, depth):
    """FLOPs of a forward of `depth` layers on `tokens` tokens that attend to `length` each."""
    return depth * tokens * (2 * (4 * width**2 + 2 * width * mlp) + 4 * length * width)


def tokenizer_flops(config):
    """FLOPs of C-ViViT's encoder, or decoder, on one clip, without the quantizer (1 %)."""
    t = config.tokenizer
    spec = factory.video_spec(config)
    steps, rows, columns = spec.grid()
    grid, tokens = rows * columns, spec.tokens()
    space = transformer_flops(tokens, grid, t.width, t.mlp_dim, t.space_depth)
    time_ = transformer_flops(tokens, steps, t.width, t.mlp_dim, t.time_depth)
    pixels = t.patch[1] * t.patch[2] * 3
    stems = 2 * grid * t.width * pixels * (1 + (steps - 1) * t.patch[0])
    return space + time_ + stems


def maskgit_flops(tokens):
    """FLOPs of one forward of the 512-wide network, text included."""
    width, depth = WIDE["width"], WIDE["depth"]
    core = transformer_flops(tokens, tokens, width, WIDE["mlp_dim"], depth)
    cross = depth * (tokens * (4 * width**2 + 4 * TEXT * width) + 4 * TEXT * 512 * width)
    return core + cross + 2 * tokens * width * (width + 8192)


def matmul_rate(size=3072):
    """FLOP/s of a square product in the compute type."""
    a = jnp.ones((size, size), factory.DTYPES[DTYPE.value])
    return 2 * size**3 / median_seconds(jax.jit(jnp.matmul), a, a)


def median_seconds(function, *arguments):
    """Median wall time of a call that was compiled before."""
    return timing.median_seconds(REPEATS.value, function, *arguments)


if __name__ == "__main__":
    cli.run(main)
