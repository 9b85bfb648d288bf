"""Table 7 and appendix B.2.3, B.3.1: MaskGIT.

    python scripts/train_maskgit.py --config=configs/maskgit.py:t2v \\
        --tokenizer=runs/cvivit --workdir=runs/t2v

Variants: t2v (1.8B), nuwa (0.9B, Table 1), bair and k600 (unconditional), small and own (own
clips), demo, mini, laptop and shapes64 (moving shapes). "t2v,mix=50/50" mixes clips and images in
a step; the paper has 100/0, 80/20 and 50/50 (Table 2), and 80/10/10 with two sets of images (§3.1).
classes has class names as captions; "small,text=t5_1_1_base" encodes captions with that encoder,
"demo,text=none" is a model without text. Clip, patch and codebook sizes are those of the
tokenizer's run.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from phenaki.configs import cvivit
from phenaki.errors import UserError
from phenaki.text import sizes

# Sampler presets: B.3.3 (compared with NUWA), B.3.4 (Table 2), B.3.5 (every video shown).
# The paper's sampler, whatever a config's own is: tokens are kept by confidence, plain guidance.
SAMPLER = dict(
    schedule="cosine",
    temperature=1.0,
    top_k=0,  # 0: all
    top_p=1.0,
    min_p=0.0,
    order="confidence",
    view="clip",
    guidance_schedule="constant",  # or linear, falling
    guidance_limit=0.0,  # 0: not bounded
    guidance_min_p=0.0,
    guidance_interval=(0.0, 1.0),  # of the steps: all
    continued={},  # options of later windows that differ
)
PRESETS = dict(
    nuwa=dict(guidance=0.1, steps=12, choice_temperature=4.0, **SAMPLER),
    ablation=dict(guidance=6.0, steps=24, choice_temperature=4.0, **SAMPLER),
    videos=dict(guidance=12.0, steps=48, choice_temperature=8.0, **SAMPLER),
)


# Five passes a clip, four a later window: docs/sampling.md#passes. Not the paper's.
FEW_PASSES = dict(
    steps=5,
    schedule="late",
    order="middle",
    temperature=(1.0, 1.0, 0.5, 0.0, 0.0),
    min_p=0.05,
    choice_temperature=1.0,
    guidance=0.0,
)
# Of more tokens than FEW_PASSES places one by one: what is sampled first decides the rest.
MIDDLE_OUT = FEW_PASSES | dict(
    steps=12, schedule="cosine", temperature=(1.0, 1.0, 0.5) + (0.0,) * 9
)
FEW_PASSES_LATER = dict(
    steps=3,
    schedule="linear",
    order="frames",
    temperature=0.0,
    min_p=0.0,
    guidance=1.0,
    guidance_limit=2.0,
    guidance_interval=(0.0, 0.34),  # the first step
)
# In the work of 1.7 passes a clip, 2.5 a later window: docs/sampling.md#begun. Not the paper's.
FAST = {
    **SAMPLER,
    **FEW_PASSES,
    "temperature": (1.0, 0.5, 0.0, 0.0, 0.0),
    "view": "begun",
    "continued": dict(
        steps=3, schedule="linear", order="frames", view="begun", temperature=0.0, min_p=0.0
    ),
}


# Of 6 x 16 tokens: those of the middle latent frame one by one, as likely as the model finds them,
# then all others at once. Guided until the object is placed: the work of 5.3 passes, 5 later.
MIDDLE_FIRST = {
    **SAMPLER,
    "steps": 17,
    "schedule": "late",
    "order": "middle",
    "view": "begun",
    "temperature": (*(1.0,) * 16, 0.0),
    "min_p": 0.01,
    "choice_temperature": 1.0,
    "guidance": 0.3,
    "guidance_limit": 2.0,
    "guidance_interval": (0.0, 0.6),
}
MIDDLE_FIRST_LATER = dict(
    steps=6,
    schedule="linear",
    order="frames",
    view="begun",
    temperature=0.0,
    min_p=0.0,
    guidance=0.0,
)


def later_windows(**given):
    """Options of windows after the first: those `given`; None, which flags may set, is no other."""
    kinds = dict(
        steps=int,
        choice_temperature=float,
        guidance=float,
        schedule=str,
        temperature=float,
        top_k=int,
        top_p=float,
        min_p=float,
        order=str,
        view=str,
        guidance_schedule=str,
        guidance_limit=float,
        guidance_min_p=float,
        guidance_interval=tuple,
    )
    return {name: placeholder(kind) for name, kind in kinds.items()} | given


def paper() -> ConfigDict:
    """Table 7, rows in its order, and the 1.8B model of B.3.1."""
    c = ConfigDict()
    c.kind = "maskgit"
    c.model = dict(
        codebook=8192,
        depth=24,
        width=2048,
        mlp_dim=8192,
        heads=32,
        dropout=0.1,  # not stated for text-to-video; the family's value (docs/paper.md#dropout)
        attention_dropout=0.1,
        position_init="normal",
    )
    c.optim = dict(
        name="adamw",
        b1=0.9,
        b2=0.99,
        rate=1e-4,
        weight_decay=1e-4,
        decay=4_000_000,  # trained for 1M steps of a cosine to 4M: the rate ends at 8.56e-5
        warmup=10_000,
        clip=10.0,
        ema=0.999,
        accumulate=1,
    )
    # Every layer's keys and values come straight from its width, 4096 (docs/paper.md#text-encoder).
    c.text = _t5("t5_1_1_xxl")
    c.drop_text = 0.1  # §2.2, for guidance
    # Or uniform, linear, square, cubic, exp. Not in the paper: the prefix trains later windows,
    # `ordered` what a sampler of a fixed order (`sample.order`) meets.
    c.mask = dict(schedule="cosine", prefix=0.0, ordered=0.0)
    # Equation 3 per sample; reduction="code" is the mean over all masked tokens of a step.
    c.loss = dict(reduction="sample", smoothing=0.0)
    c.code_init = 0.0  # scale of the tokenizer's codes in the initial embeddings; not in the paper
    # 80/20 of 512 samples: 410 clips and 102 images, rounded so that both divide over 2^n devices.
    c.data = dict(
        source="tfds",
        sources="data/video_text",  # a directory, or several with rates: "A=0.8,B=0.2"
        image_sources="",  # the same for images; "" = those of `sources`
        captions="sampled",  # of several captions of a clip another one in every epoch, or first
        batch=416,
        image_batch=96,
        world={},
    )
    c.sample = dict(
        steps=24,
        choice_temperature=4.0,
        guidance=6.0,
        **SAMPLER,
        context=5,  # K frames handed from window to window
    )
    c.sample.continued = later_windows()
    c.presets = PRESETS
    # Fine-tuning: the run or bundle of a whole model of the same sizes, whose MaskGIT starts this.
    c.start = ""
    c.train = dict(
        steps=1_000_000, log_every=100, save_every=5000, sample_every=5000, sample_count=100, keep=2
    )
    c.train.from_step = 0  # see configs/cvivit.py
    c.guard = dict(spike=20.0, patience=10, tries=3, hang_minutes=60.0)  # see configs/cvivit.py
    c.mesh = dict(data=-1, fsdp=1, tensor=1, sequence=1, slices=1)
    c.dtype = "bfloat16"
    c.remat = "full"
    c.unroll = 1
    c.attention = "auto"  # the platform's, or a name of blocks/attention_impl.py
    c.seed = 0
    return c


def _t5(name):
    """The public encoder of that name; docs/text.md has the source of its files."""
    numbers = _known("text encoder", name, sizes.T5)  # or none, see `text`
    return ConfigDict(
        dict(
            vocabulary="data/t5/sentencepiece.model", length=128, vocab_size=sizes.VOCAB_SIZE,
            **numbers, relpos_std=1.0, relpos_far=0.0, relpos_per_layer=False,
            weights=f"data/t5/{name}/checkpoint_1000000", seed=0,
            cached=False,  # True keeps every caption's embeddings on the host
        )
    )  # fmt: skip


def t2v(c):
    """B.3.1: 1.8B parameters; the paper samples its videos with λ 12, 48 steps, temperature 8."""
    c.mesh.update(data=1, fsdp=-1)
    c.remat = "products"


def nuwa(c):
    """B.3.1, B.3.3: 0.9B parameters, half images, for Table 1 (FID-image 37.74, FID-video 3.84)."""
    c.model.update(depth=20, width=1536, mlp_dim=6144, heads=24)
    c.data.update(batch=256, image_batch=256)
    c.sample.update(steps=12, choice_temperature=4.0, guidance=0.1)
    c.mesh.update(data=1, fsdp=-1)
    c.remat = "products"


def bair(c):
    """B.2.3, B.2.4: unconditional, 64 px; constant rate after the warm-up, 2M steps."""
    c.model.update(depth=24, width=768, mlp_dim=3072, heads=16, dropout=0.1, attention_dropout=0.1)
    c.text = None
    c.optim.decay = None
    c.data.update(sources="data/bair", batch=512, image_batch=0)
    c.sample.update(guidance=0.0)
    c.train.steps = 2_000_000


def k600(c):
    """As bair, on Kinetics-600."""
    bair(c)
    c.data.sources = "data/k600"


def _byte_encoder(c):
    # Not a trained language model: random features of byte n-grams are enough for small grammars.
    c.text = ConfigDict(
        dict(
            vocabulary="bytes", length=72, vocab_size=259, width=96, heads=8, head_dim=12,
            layers=2, mlp_dim=192, relpos_std=8.0, relpos_far=20.0, weights="random", seed=0,
            cached=True,
        )
    )  # fmt: skip


def small(c):
    """Own clips at 64 px on one device, also a CPU."""
    c.model.update(codebook=1024, depth=4, width=192, mlp_dim=768, heads=4)
    c.model.update(dropout=0.0, attention_dropout=0.0, position_init="factorised")
    _byte_encoder(c)
    c.optim.update(rate=1e-3, warmup=100, clip=1.0, ema=0.99)
    cvivit.decay_at_the_end(c)
    c.data.update(sources="data/clips", batch=4, image_batch=2)
    c.sample.update(steps=24, choice_temperature=4.0, guidance=1.0)
    c.train.update(steps=800, log_every=50, save_every=400, sample_every=800)
    c.dtype, c.remat, c.unroll = "float32", "none", 8


def own(c):
    """Own clips at 32 px on two cores, clips alone: 96 tokens, 1.3M parameters."""
    small(c)
    c.model.update(width=128, mlp_dim=512, heads=2)
    c.code_init = 0.15
    c.optim.update(rate=1.5e-3, warmup=150)
    c.data.update(batch=16, image_batch=0)
    c.sample = ConfigDict({**c.sample.to_dict(), **MIDDLE_OUT})
    c.train.update(steps=2000, save_every=500, sample_every=1000)


def _shapes(c):
    """What models of moving shapes have in common: 24 tokens, a byte encoder, float32."""
    c.model.update(
        codebook=1024, depth=4, width=128, mlp_dim=512, heads=2, dropout=0.0, attention_dropout=0.0
    )
    c.model.position_init = "factorised"
    c.code_init = 0.15
    _byte_encoder(c)
    c.optim.update(rate=2e-3, warmup=200, clip=1.0, ema=0.995)
    cvivit.decay_at_the_end(c)
    c.data.update(source="moving_shapes", batch=32, image_batch=0)
    c.train.update(steps=3000, log_every=100, save_every=1000, sample_every=1000, sample_count=30)
    c.dtype, c.remat, c.unroll = "float32", "none", 8


def _few_passes(c):
    c.sample = ConfigDict({**c.sample.to_dict(), **FEW_PASSES})
    c.sample.continued = later_windows(**FEW_PASSES_LATER)


def demo(c):
    """Moving shapes: 24 tokens, 1.2M parameters: minutes on two cores."""
    _shapes(c)
    c.optim.name = "muon"  # see configs/cvivit.py:demo
    # Clips as later windows of a story are: docs/stories.md#limits.
    c.mask.prefix = 0.2
    c.data.world = ConfigDict(cvivit.world(radius=5.2, then=0.4, wander=0.4))
    _few_passes(c)


def mini(c):
    """Moving shapes over cvivit.py:mini, 0.7M parameters: for Table 2 in miniature on one CPU."""
    _shapes(c)
    c.model.update(width=96, mlp_dim=384)
    c.optim.ema = 0.99
    c.data.world = ConfigDict(cvivit.world(radius=4.0, then=0.0))
    # More steps than tokens, so that the last ones are sampled one by one, too.
    c.sample.update(steps=40, choice_temperature=1.0, guidance=0.5)
    c.train.update(steps=2000, save_every=2000, sample_every=2000, sample_count=0)


def laptop(c):
    """Moving shapes, wider and longer: the released checkpoint."""
    _shapes(c)
    c.model.update(width=192, mlp_dim=512, heads=3)
    c.code_init = 0.044
    c.optim.update(rate=1.5e-3, ema=0.999)
    c.data.world = ConfigDict(cvivit.world(radius=5.5, then=0.5))
    _few_passes(c)
    c.presets = PRESETS | dict(fast=FAST)
    c.train.update(steps=11_000, save_every=2750, sample_every=2750)


def shapes64(c):
    """Moving shapes at 64 px, one or two: 96 tokens."""
    laptop(c)
    c.model.mlp_dim = 768
    c.optim.update(name="muon", rate=2e-3)
    c.mask.update(prefix=0.25, ordered=0.6)
    c.data.batch = 16
    c.data.world = ConfigDict(cvivit.world64(then=0.55, wander=0.6, pair=0.45))
    c.sample = ConfigDict({**c.sample.to_dict(), **MIDDLE_FIRST})
    c.sample.continued = later_windows(**MIDDLE_FIRST_LATER)
    c.presets = PRESETS
    c.train.update(steps=7500, save_every=1000, sample_every=3750)


def mix(c, percentages: str):
    """Mixes clips and images in a step: "80/20", or "80/10/10" for two sets of images.

    Both sub-batches are whole sixteenths of the sum, so that they divide over up to sixteen
    devices, of 512 over 32; other percentages are rounded to them (416 and 96 for 80/20). Give
    several sets of images as `config.data.image_sources`, such as "A=0.5,B=0.5".
    """
    percent = [int(part) if part.isdecimal() else -1 for part in percentages.split("/")]
    if len(percent) < 2 or min(percent) < 0 or sum(percent) != 100:
        raise UserError(
            f"mix={percentages}: must be the percentages of clips and of each set of images, with "
            "the sum 100, such as 80/20 or 80/10/10."
        )
    total = c.data.batch + c.data.image_batch
    unit = max(total // 16, 1)
    image_batch = round(total * sum(percent[1:]) / 100 / unit) * unit
    c.data.update(batch=total - image_batch, image_batch=image_batch)


def text(c, name):
    """Encodes captions with a public encoder, such as t5_1_1_base; "none" is a model without text.

    Their embeddings are cached if those of `c` were.
    """
    if name == "none":
        c.text = None
        c.sample.guidance = 0.0
        c.sample.continued.guidance = 0.0
        c.train.sample_count = 0  # its scores are of prompts
        return
    cached = bool(c.text and c.text.cached)
    c.text = _t5(name)
    c.text.cached = cached


def classes(c):
    """As small, with class names as captions: every layer learns a row per class.

    Set config.text.vocabulary to labels:FILE, a file with a name a line, and config.text.width to
    their number.
    """
    small(c)
    c.text = ConfigDict(dict(vocabulary="labels:data/labels.txt", length=1, width=10, cached=False))


VARIANTS = dict(
    t2v=t2v, nuwa=nuwa, bair=bair, k600=k600, small=small, own=own, demo=demo, mini=mini,
    laptop=laptop, shapes64=shapes64, classes=classes,
)  # fmt: skip


OPTIONS = dict(mix=mix, text=text)


def get_config(variant: str = "t2v") -> ConfigDict:
    """The config of a variant, "NAME" or "NAME,mix=PERCENTAGES,text=ENCODER" with either option.

    ENCODER may be none.
    """
    name, *options = variant.split(",")
    c = paper()
    _known("variant", name, VARIANTS)(c)
    for option in options:
        key, _, value = option.partition("=")
        _known("option", key, OPTIONS)(c, value)
    return c


def _known(what, name, table):
    if name not in table:
        raise UserError(f"configs/maskgit.py:{name}: no such {what}; known: {', '.join(table)}.")
    return table[name]
