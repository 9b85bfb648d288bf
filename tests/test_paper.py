"""The paper's numbers: every config builds, and has the sizes, counts and rates of its table."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from configs import baselines, critic, cvivit, maskgit
from phenaki.errors import UserError
from phenaki.models import factory
from phenaki.text.vocabulary import ByteVocabulary
from phenaki.train import optim
from phenaki.types import Text

# Stage 2 -> the stage 1 whose codes it is for, where names differ.
STAGE_1 = {"nuwa": "t2v", "classes": "small"}
PARAMETERS = {
    ("cvivit", "mit"): 51_597_408,
    ("cvivit", "t2v"): 51_597_408,
    ("cvivit", "bair"): 88_986_288,
    ("cvivit", "k600"): 101_595_824,
    ("baselines", "vit"): 51_195_104,
    ("baselines", "conv"): 56_350_723,
    ("baselines", "laion3d"): 43_371_027,
    ("maskgit", "t2v"): 1_837_010_944,
    ("maskgit", "nuwa"): 930_163_712,
    ("maskgit", "bair"): 178_772_480,
    ("maskgit", "k600"): 178_772_480,
}
STAGE_1_CONFIGS = dict(cvivit=cvivit, baselines=baselines)
# Encoder, decoder and codebook in millions, as the appendix's layers give them.
SIDES = dict(vit=(25.47, 25.47, 0.26), conv=(23.78, 30.48, 2.10), laion3d=(19.88, 23.36, 0.13))
TOKENS = dict(mit=1536, t2v=1536, bair=2304, k600=2304, small=384)


def count(shapes) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def stage_2(variant):
    config, tokenizer = (
        maskgit.get_config(variant),
        cvivit.get_config(STAGE_1.get(variant, variant)),
    )
    return ConfigDict(
        {**config.to_dict(), "video": tokenizer.video, "tokenizer": tokenizer.tokenizer}
    )


@functools.cache
def shapes(stage, variant):
    """Parameter shapes of a config's network; nothing is computed."""
    if stage in STAGE_1_CONFIGS:
        config = STAGE_1_CONFIGS[stage].get_config(variant)
        v = config.video
        model = factory.tokenizer(config)
        inputs = (jax.ShapeDtypeStruct((1, v.frames, v.height, v.width, 3), jnp.float32),)
    else:
        config = stage_2(variant)
        model = factory.maskgit(config)
        inputs = (jax.ShapeDtypeStruct((1, factory.video_spec(config).tokens()), jnp.int32),)
        if config.text:
            size = (1, config.text.length)
            inputs += (Text(jnp.zeros((*size, config.text.width)), jnp.ones(size, bool)),)
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]


@pytest.mark.parametrize("variant", cvivit.VARIANTS)
def test_every_tokenizer_builds(variant):
    spec = factory.video_spec(cvivit.get_config(variant))
    assert spec.tokens() == TOKENS.get(variant, spec.tokens())
    total = count(shapes("cvivit", variant))
    assert total == PARAMETERS.get(("cvivit", variant), total)


@pytest.mark.parametrize("variant", baselines.VARIANTS)
def test_every_baseline_builds(variant):
    config = baselines.get_config(variant)
    network = variant.removesuffix("_video").removesuffix("_images")
    total = count(shapes("baselines", variant))
    assert total == PARAMETERS.get(("baselines", network), total)
    if network not in SIDES:
        return
    spec = factory.video_spec(config)
    per_clip = {"laion3d": 1536, "laion3d_images": 256}
    assert spec.tokens() == per_clip.get(variant, 2560)  # Table 3
    assert spec.tokens(1) == 256
    sides = dict.fromkeys(("encoder", "decoder", "codebook"), 0)
    for name, shape in shapes("baselines", variant).items():
        side = "codebook" if name == "quantizer" else "encoder"
        if name.startswith("decoder") or name.endswith("_out"):
            side = "decoder"
        sides[side] += count(shape)
    assert tuple(round(total / 1e6, 2) for total in sides.values()) == SIDES[network]


def test_baselines_are_trained_as_cvivit_is():
    ours = cvivit.get_config("mit")
    for variant in ("vit", "vit_video", "conv", "conv_video", "laion3d", "laion3d_images"):
        theirs = baselines.get_config(variant)
        for section in ("optim", "codebook", "data", "train"):
            assert theirs[section] == ours[section], (variant, section)
        added = 1.0 if variant.endswith("_video") else 0.0
        assert theirs.loss.to_dict() == ours.loss.to_dict() | {"video_perceptual": added}
    sizes = baselines.get_config("vit").tokenizer
    assert (sizes.depth, sizes.width, sizes.mlp_dim, sizes.heads) == (8, 512, 2048, 8)
    assert (sizes.patch, sizes.code_dim) == ((1, 8, 8), 32)
    sizes = baselines.get_config("conv").tokenizer
    assert (sizes.multipliers, sizes.blocks) == ((1, 1, 2, 2, 4), 2)
    assert (sizes.filters, sizes.code_dim) == (128, 256)


@pytest.mark.parametrize("variant", maskgit.VARIANTS)
def test_every_maskgit_builds(variant):
    total = count(shapes("maskgit", variant))
    assert total == PARAMETERS.get(("maskgit", variant), total)
    config = stage_2(variant)
    assert shapes("maskgit", variant)["position"].shape[0] == factory.video_spec(config).tokens()
    if config.text:
        assert factory.text_encoder(config).width == config.text.width
        if config.text.vocabulary == "bytes":
            assert isinstance(factory.vocabulary(config), ByteVocabulary)
        else:  # a file that comes with nobody's clone
            with pytest.raises(UserError, match="^data/.* no such "):
                factory.vocabulary(config)


def test_an_image_has_256_tokens():
    spec = factory.video_spec(cvivit.get_config("t2v"))
    assert (spec.grid(), spec.tokens(1)) == ((6, 16, 16), 256)
    assert factory.video_spec(cvivit.get_config("bair")).tokens(1) == 256
    # Section 1: at least 40 % fewer tokens than 256 for each of 10 frames.
    assert spec.tokens() <= 0.6 * 10 * 256


def test_table_6():
    c = cvivit.get_config("mit")
    assert (c.video.frames, c.video.height, c.video.width) == (11, 128, 128)
    t = c.tokenizer
    assert (t.patch, t.width, t.code_dim) == ((2, 8, 8), 512, 32)
    assert (t.space_depth, t.time_depth, t.heads, t.mlp_dim) == (4, 4, 8, 2048)
    assert t.codebook == 8192
    o = c.optim
    assert (o.name, o.b1, o.b2, o.rate, o.weight_decay) == ("adamw", 0.9, 0.99, 1e-4, 1e-4)
    assert (o.decay, o.warmup, o.clip, c.train.steps) == (1_000_000, 100_000, 10, 1_000_000)
    assert c.data.batch == 128  # B.1.2; the table's 1028 is a slip (docs/paper.md#batch-size)
    assert c.codebook.revive_until == 0
    stems = shapes("cvivit", "mit")
    assert stems["first_in"]["kernel"].shape == (192, 512)
    assert stems["rest_in"]["kernel"].shape == (384, 512)
    assert stems["quantizer"]["embedding"].shape == (8192, 32)


def test_equations_1_and_2():
    loss = cvivit.get_config("mit").loss
    assert (loss.l2, loss.vq, loss.beta) == (1.0, 1.0, 0.25)
    assert (loss.adversarial, loss.perceptual, loss.video_perceptual) == (0.1, 0.1, 1.0)


def test_table_7():
    c = stage_2("t2v")
    m, o = c.model, c.optim
    assert factory.video_spec(c).tokens() == 1536
    assert (m.depth, m.width, m.mlp_dim, m.heads) == (24, 2048, 8192, 32)
    assert (o.name, o.b1, o.b2, o.rate, o.weight_decay) == ("adamw", 0.9, 0.99, 1e-4, 1e-4)
    assert (o.decay, o.warmup, o.clip) == (4_000_000, 10_000, 10)
    assert c.data.batch + c.data.image_batch == 512
    assert abs(c.data.batch / 512 - 0.8) < 0.015
    assert (c.train.steps, c.drop_text) == (1_000_000, 0.1)
    p = shapes("maskgit", "t2v")
    assert p["embedding"].shape == (8193, 2048)
    # Keys and values of every layer straight from the text's width (docs/paper.md#text-encoder).
    assert p["text_key_value"]["kernel"].shape == (4096, 24, 2, 32, 64)


def test_appendix_b():
    nuwa, bair = maskgit.get_config("nuwa"), maskgit.get_config("bair")
    m = nuwa.model
    assert (m.depth, m.width, m.mlp_dim, m.heads) == (20, 1536, 6144, 24)
    assert (nuwa.data.batch, nuwa.data.image_batch) == (256, 256)
    s = nuwa.sample
    assert (s.guidance, s.steps, s.choice_temperature) == (0.1, 12, 4.0)
    m = bair.model
    assert (m.depth, m.width, m.mlp_dim, m.heads) == (24, 768, 3072, 16)
    assert (m.dropout, m.attention_dropout, bair.text) == (0.1, 0.1, None)
    for name, depths in dict(bair=(8, 6), k600=(8, 8)).items():
        c = cvivit.get_config(name)
        assert (c.tokenizer.space_depth, c.tokenizer.time_depth) == depths
        assert (c.tokenizer.patch, c.video.frames, c.video.height) == ((2, 4, 4), 17, 64)
    assert cvivit.get_config("t2v").video.fps == 8
    assert cvivit.get_config("mit").video.fps == 6


@pytest.mark.parametrize(
    ("config", "rates"),
    [
        (
            cvivit.get_config("mit"),
            {0: 0, 50_000: 5e-5, 100_000: 1e-4, 550_000: 5e-5, 1_000_000: 0},
        ),
        (
            maskgit.get_config("t2v"),
            {0: 0, 10_000: 1e-4, 1_000_000: 8.556e-5, 2_000_000: 5.02e-5, 4_000_000: 0},
        ),
        (maskgit.get_config("bair"), {0: 0, 5_000: 5e-5, 10_000: 1e-4, 2_000_000: 1e-4}),
    ],
    ids=["stage 1", "table 7", "B.2.4"],
)
def test_learning_rates(config, rates):
    o = config.optim
    schedule = jax.jit(optim.schedule(peak=o.rate, warmup=o.warmup, decay=o.decay))
    for step, rate in rates.items():
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-3, abs=1e-10), step


@pytest.mark.parametrize("module", [baselines, cvivit, maskgit])
def test_an_unknown_variant_names_those_there_are(module):
    with pytest.raises(UserError, match=r"demmo: no such variant; known: \w+, "):
        module.get_config("demmo")


@pytest.mark.parametrize(
    ("module", "variant"),
    [(cvivit, "small"), (cvivit, "laptop"), (maskgit, "mini"), (critic, "demo")],
)
def test_the_decay_of_small_presets_ends_with_their_steps_unless_it_is_given(module, variant):
    config = module.get_config(variant)
    assert config.optim.decay == config.train.steps
    config.train.steps = 77
    assert config.to_dict()["optim"]["decay"] == 77  # a plain number, as stored
    config.optim.decay = 5
    assert config.train.steps == 77
    config.train.steps = 99
    assert config.optim.decay == 5
