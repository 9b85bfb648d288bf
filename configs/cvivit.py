"""Table 6 and appendix B.1, B.2: C-ViViT.

    python scripts/train_cvivit.py --config=configs/cvivit.py:mit --workdir=runs/cvivit_mit

Variants: mit (Table 3: FID 4.5, FVD 65.78 with 1536 tokens), t2v (8 fps, for text-to-video), bair
and k600 (64 px, Tables 4 and 5), small (64 px, own clips on one device), own (32 px, own clips on
two cores), demo, mini, laptop and shapes64 (moving shapes).
"""

from ml_collections import ConfigDict

from phenaki.errors import UserError


def paper() -> ConfigDict:
    """Table 6, rows in its order."""
    c = ConfigDict()
    c.kind = "tokenizer"  # what is trained; or "maskgit", "critic"
    c.video = dict(frames=11, height=128, width=128, fps=6.0)
    c.tokenizer = dict(
        name="cvivit",
        patch=(2, 8, 8),  # frames, rows, columns
        width=512,  # hidden size
        code_dim=32,  # embedding dimension after the linear projection
        space_depth=4,
        time_depth=4,
        heads=8,
        mlp_dim=2048,
        codebook=8192,
        quantizer="vq",  # equation 1; "fsq" and "lfq" learn no codebook
    )
    c.optim = dict(
        name="adamw",
        b1=0.9,
        b2=0.99,
        rate=1e-4,
        weight_decay=1e-4,
        decay=1_000_000,  # cosine to 0 at this step
        warmup=100_000,
        clip=10.0,  # global norm
        ema=0.999,
        accumulate=1,  # micro-batches per step
    )
    # Equations 1 and 2. A weight of 0 builds no network.
    c.loss = dict(vq=1.0, adversarial=0.1, perceptual=0.1, video_perceptual=1.0, l2=1.0, beta=0.25)
    # B.1.1 names the network by its flags; the rest is its family's (docs/paper.md#discriminator).
    c.gan = dict(
        network="residual",  # or "stylegan2"
        width=512,  # channels of maps up to 32 px
        frames=None,  # random frames per clip; None: all
        loss="non_saturating",  # or "hinge"
        start=0,  # the step from which both networks train
        r1=10.0,
        r1_every=1,  # 16 is the lazy penalty of StyleGAN2
        lecam=0.0,
        lecam_decay=0.999,
        adaptive_limit=0.0,  # of VQGAN's adaptive weight; 0 = off
    )
    # Of L_IP (VGG16, LPIPS) and L_VP (I3D): a directory written by scripts/convert_weights.py, or
    # "random" for a try. The paper names no layer of I3D: docs/paper.md#perceptual-losses.
    c.features = dict(weights="weights", i3d=("logits_mean",), i3d_size=224)
    # Usage is counted over a window of 20 and more tokens per code. Not in the paper: revival of
    # unused codes until a step (0 = never), and an EMA codebook (0 = by gradient, equation 1).
    c.codebook = dict(usage_window=100, revive_until=0, decay=0.0)
    c.data = dict(
        source="tfds",
        sources="data/mit",  # a directory, or several with rates: "A=0.8,B=0.2"
        image_sources="",  # the same for images; "" = those of `sources`
        batch=128,
        image_batch=0,
        world={},
    )
    # Warm start: the run or bundle of a C-ViViT, also of one of images only (video.frames=1).
    c.start = ""
    c.train = dict(steps=1_000_000, log_every=100, save_every=5000, sample_every=5000, keep=2)
    c.train.from_step = (
        0  # resume once from this checkpoint and set later ones aside; 0: the newest
    )
    # Not in the paper. An update is skipped where a loss or gradient is not finite, or exceeds its
    # recent mean `spike` times; after `patience` skips in a row the run rolls back to its last
    # checkpoint, and stops after `tries` roll-backs.
    c.guard = dict(spike=20.0, patience=10, tries=3, hang_minutes=60.0)
    c.mesh = dict(data=-1, fsdp=1, tensor=1, sequence=1, slices=1)
    c.dtype = "bfloat16"
    c.remat = "none"
    c.unroll = 1
    c.attention = "auto"  # the platform's, or a name of blocks/attention_impl.py
    c.seed = 0
    return c


def mit(c):
    """Table 6 and Table 3: 11x128x128 at 6 frames a second, 51.6M parameters."""


def t2v(c):
    """B.3.1: the same architecture at 8 frames per second."""
    c.video.fps = 8.0
    c.data.sources = "data/video_text"


def bair(c):
    """B.2.1: 64 px in 4x4 patches; clips of 17 for 16 scored (docs/paper.md#sixteen-frames)."""
    c.video = ConfigDict(dict(frames=17, height=64, width=64, fps=10.0))
    c.tokenizer.update(patch=(2, 4, 4), space_depth=8, time_depth=6)
    c.data.sources = "data/bair"


def k600(c):
    """B.2.2: as bair with 8 layers over time, at the native frame rate."""
    bair(c)
    c.video.fps = 25.0
    c.tokenizer.time_depth = 8
    c.data.sources = "data/k600"


def plain_loss(c):
    """L_2 and L_VQ only: nothing to download, and little to compute."""
    c.loss.update(adversarial=0.0, perceptual=0.0, video_perceptual=0.0)


def decay_at_the_end(c):
    """The learning rate reaches 0 at the last step, whatever `config.train.steps` is set to.

    A value given to `config.optim.decay` is kept.
    """
    c.optim.decay = c.train.get_oneway_ref("steps")


def small(c):
    """Own clips at 64 px on one device, also a CPU: 6x8x8 tokens, 3.2M parameters."""
    plain_loss(c)
    c.gan.width = 128
    c.video = ConfigDict(dict(frames=11, height=64, width=64, fps=8.0))
    c.tokenizer.update(width=192, code_dim=16, space_depth=2, time_depth=1, heads=4, mlp_dim=768)
    c.tokenizer.codebook = 1024
    # Clips in strong colours collapse to one colour at 2e-3 (docs/own_clips.md#rate).
    c.optim.update(rate=1e-3, warmup=100, clip=1.0, ema=0.99)
    decay_at_the_end(c)
    c.codebook.update(usage_window=50, revive_until=1000)
    c.data.update(sources="data/clips", batch=4, image_batch=0)
    c.train.update(steps=1500, log_every=50, save_every=500, sample_every=500)
    c.dtype = "float32"
    c.unroll = 8


def own(c):
    """Own clips at 32 px on two cores in minutes: 6x4x4 tokens, 1.2M parameters."""
    small(c)
    c.video.update(height=32, width=32)
    # Patches of 8 px: with 16, strokes of a digit are lost (docs/own_clips.md#digits).
    c.tokenizer.update(width=128, space_depth=1, mlp_dim=512)
    c.codebook.revive_until = 700
    c.data.batch = 16
    c.train.steps = 1000


def _shapes(c):
    """What models of moving shapes have in common: 28 px, 6x2x2 tokens, 1.3M parameters."""
    plain_loss(c)
    c.gan.width = 64
    c.video = ConfigDict(dict(frames=11, height=28, width=28, fps=8.0))
    c.tokenizer.update(
        patch=(2, 14, 14),
        width=128,
        code_dim=16,
        space_depth=1,  # with 2, tokens of empty patches depend on the others: harder to predict
        time_depth=1,
        heads=4,
        mlp_dim=512,
        codebook=1024,
    )
    c.optim.update(rate=3e-3, warmup=100, clip=1.0, ema=0.99)
    decay_at_the_end(c)
    c.codebook.update(usage_window=60, revive_until=3500)
    c.data.update(source="moving_shapes", batch=16, image_batch=0)
    c.data.world = ConfigDict(world(radius=5.2, then=0.4))
    c.train.update(steps=5000, log_every=50, save_every=1000, sample_every=2500)
    c.dtype = "float32"
    c.unroll = 8


def demo(c):
    """Moving shapes at 28 px in 6x2x2 tokens, 1.3M parameters: minutes on two cores."""
    _shapes(c)
    c.optim.name = "muon"  # needs fewer steps than AdamW: docs/results.md#demo
    c.codebook.revive_until = 2500
    c.train.steps = 3500


def mini(c):
    """Moving shapes at 24 px, 1.2M parameters: what the baselines are compared with on one CPU."""
    _shapes(c)
    c.video.update(height=24, width=24)
    c.tokenizer.patch = (2, 12, 12)
    c.data.world = ConfigDict(world(radius=4.0, then=0.4))


def laptop(c):
    """Moving shapes at 32 px, 3.3M parameters, trained longer: the released checkpoint."""
    _shapes(c)
    c.video.update(height=32, width=32)
    c.tokenizer.update(patch=(2, 16, 16), width=192, mlp_dim=640, space_depth=2)
    c.optim.rate = 2e-3
    c.codebook.revive_until = 6000
    c.data.world = ConfigDict(world(radius=5.5, then=0.5))
    c.train.update(steps=9000)


def shapes64(c):
    """Moving shapes at 64 px, one or two: 6x4x4 tokens, 2.5M parameters."""
    laptop(c)
    c.video.update(height=64, width=64)
    c.tokenizer.space_depth = 1  # see _shapes
    c.optim.update(name="muon", ema=0.995)
    c.codebook.revive_until = 3000
    c.data.world = ConfigDict(world64())
    c.train.update(steps=4500, save_every=500, sample_every=1500)


def world64(**changes) -> dict:
    """The moving shapes of both stages at 64 px; with two objects in a fifth of the clips."""
    return world(radius=10.0, then=0.5, wander=0.4) | dict(speed=2.0, pair=0.4) | changes


def world(radius: float, then: float, wander: float = 0.0) -> dict:
    """The moving shapes of both stages: radius in pixels, fraction of clips that change midway.

    `wander` is the fraction of those that start where earlier windows of a story may lead.
    """
    return dict(
        radius=radius,
        sizes=("large",),
        then=then,
        wander=wander,
        speed=1.0,  # pixels a frame
        subpixel=1,
        colours=("red", "green", "blue", "yellow", "cyan", "white"),
        shapes=("circle", "square", "triangle"),
        directions=("right", "left", "down", "up"),
        backgrounds=("black", "gray", "navy"),
        still_colours=(),
        unnamed=(),
        nameless=0.0,
        held_out=6,
        turn=5,
        pair=0.0,
    )


VARIANTS = dict(
    mit=mit, t2v=t2v, bair=bair, k600=k600,
    small=small, own=own, demo=demo, mini=mini, laptop=laptop,
    shapes64=shapes64,
)  # fmt: skip


def get_config(variant: str = "mit") -> ConfigDict:
    """The config of a variant."""
    if variant not in VARIANTS:
        raise UserError(
            f"configs/cvivit.py:{variant}: no such variant; known: {', '.join(VARIANTS)}."
        )
    c = paper()
    VARIANTS[variant](c)
    return c
