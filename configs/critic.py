"""Token critics (not in the paper; docs/paper.md#token-critic): which tokens were sampled.

    python scripts/train_critic.py --config=configs/critic.py:demo \\
        --generator=runs/demo/maskgit --workdir=runs/demo/critic

Variants: t2v (for the 1.8B model), demo and laptop (moving shapes). Clips, tokens, captions and
text encoder are those of the generator's run or bundle.
"""

from ml_collections import ConfigDict

from phenaki.configs import cvivit
from phenaki.errors import UserError


def t2v() -> ConfigDict:
    """About the size of the generators that critics were published for; every number is ours."""
    c = ConfigDict()
    c.kind = "critic"
    c.critic = dict(
        kind="network",  # or "head": one layer of `width` on the features of the frozen generator
        text=True,
        depth=24,
        width=768,
        mlp_dim=3072,
        heads=12,
        dropout=0.1,
        attention_dropout=0.1,
    )
    c.labels = "masked"  # or "differs": a token that was sampled right is real
    c.prefix = 0.25  # fraction of clips whose first frames are known, as in stories
    c.drop_text = 0.1  # for the critic's own guidance
    c.mask = dict(schedule="cosine")
    c.optim = dict(
        name="adamw",
        b1=0.9,
        b2=0.99,
        rate=1e-4,
        weight_decay=1e-4,
        decay=300_000,
        warmup=10_000,
        clip=10.0,
        ema=0.999,
        accumulate=1,
    )
    c.data = dict(batch=416, image_batch=96)
    c.train = dict(
        steps=300_000, log_every=100, save_every=5000, sample_every=5000, sample_count=100, keep=2
    )
    c.train.from_step = 0  # see configs/cvivit.py
    c.guard = dict(spike=20.0, patience=10, tries=3, hang_minutes=60.0)  # see configs/cvivit.py
    c.mesh = dict(data=1, fsdp=-1, tensor=1, sequence=1, slices=1)
    c.dtype = "bfloat16"
    c.remat = "full"
    c.unroll = 1
    c.attention = "auto"
    c.seed = 0
    return c


def demo() -> ConfigDict:
    """Moving shapes, of the size of their generator."""
    c = t2v()
    c.critic.update(depth=4, width=128, mlp_dim=512, heads=2, dropout=0.0, attention_dropout=0.0)
    c.optim.update(rate=1e-3, warmup=100, clip=1.0, ema=0.995)
    cvivit.decay_at_the_end(c)
    c.data.update(batch=32, image_batch=0)
    c.train.update(steps=1500, log_every=50, save_every=500, sample_every=1500, sample_count=30)
    c.mesh.update(data=-1, fsdp=1)
    c.dtype, c.remat, c.unroll = "float32", "none", 8
    return c


def laptop() -> ConfigDict:
    """As demo, wider and longer."""
    c = demo()
    c.critic.update(width=192, heads=3)
    c.optim.ema = 0.999
    c.train.update(steps=4000, save_every=1000, sample_every=4000)
    return c


VARIANTS = dict(t2v=t2v, demo=demo, laptop=laptop)


def get_config(variant: str = "t2v") -> ConfigDict:
    """The config of a variant."""
    if variant not in VARIANTS:
        raise UserError(
            f"configs/critic.py:{variant}: no such variant; known: {', '.join(VARIANTS)}."
        )
    return VARIANTS[variant]()
