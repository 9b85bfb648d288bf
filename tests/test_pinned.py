"""Points that the paper leaves open, as docs/paper.md settles them: each value, literally.

A change of one is a change of that page: its row names the test here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import cvivit, maskgit
from phenaki.train import tokenizer

MIT, T2V, BAIR = cvivit.get_config("mit"), maskgit.get_config("t2v"), maskgit.get_config("bair")


def test_the_discriminator_has_the_tokenizers_optimizer_and_schedule():
    """docs/paper.md#discriminator-optimizer: B.1.2."""
    config = tiny.tokenizer_config(loss=dict(adversarial=0.1), gan=dict(width=8))
    stage = tokenizer.make_stage(config)
    params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"bias": jnp.ones(3)}}
    ours, theirs = stage.step.optimizer, stage.loss.adversary.optimizer
    states = [optimizer.init(params) for optimizer in (ours, theirs)]
    random = np.random.default_rng(0)
    for _ in range(12):  # through the warm-up of 2 steps, and on along the cosine to step 50
        grads = jax.tree.map(lambda x: jnp.asarray(20 * random.normal(size=x.shape)), params)
        updates = []
        for index, optimizer in enumerate((ours, theirs)):
            update, states[index] = optimizer.update(grads, states[index], params)
            updates.append(update)
        jax.tree.map(np.testing.assert_array_equal, *updates)


def test_the_gan_loss_its_penalty_and_the_frames_it_judges():
    """docs/paper.md#gan-loss, #judged-frames, #discriminator."""
    g = MIT.gan
    assert (g.loss, g.r1, g.r1_every, g.start) == ("non_saturating", 10.0, 1, 0)
    assert (g.lecam, g.adaptive_limit) == (0.0, 0.0)
    assert g.frames is None  # all eleven
    assert (g.network, g.width) == ("residual", 512)


def test_the_layer_of_i3d_and_the_networks_of_the_perceptual_losses():
    """docs/paper.md#perceptual-losses: FVD's features."""
    assert (tuple(MIT.features.i3d), MIT.features.i3d_size) == (("logits_mean",), 224)
    assert MIT.features.weights == "weights"


def test_stage_1_trains_on_clips_alone_with_an_ema_in_bfloat16():
    """docs/paper.md#ema, #stage-1-images, #precision, #codebook-start."""
    for config in (MIT, T2V, BAIR):
        assert (config.optim.ema, config.dtype) == (0.999, "bfloat16")
    assert (MIT.data.image_batch, MIT.codebook.revive_until, MIT.codebook.decay) == (0, 0, 0.0)
    assert MIT.tokenizer.quantizer == "vq"


@pytest.mark.parametrize(("name", "fps"), [("mit", 6), ("t2v", 8), ("bair", 10), ("k600", 25)])
def test_the_frame_rate_of_each_set(name, fps):
    """B.1.2, B.3.1, B.2.4: Kinetics-600 at the rate of its files, 25 a second."""
    assert cvivit.get_config(name).video.fps == fps


@pytest.mark.parametrize("name", ["t2v", "nuwa", "bair", "k600"])
def test_dropout_masks_and_smoothing_of_stage_2(name):
    """docs/paper.md#dropout, #mask-schedule, #prediction-masks, #label-smoothing,
    #loss-reduction."""
    c = maskgit.get_config(name)
    assert (c.model.dropout, c.model.attention_dropout) == (0.1, 0.1)
    assert (c.mask.schedule, c.loss.smoothing, c.loss.reduction) == ("cosine", 0.0, "sample")
    assert (c.mask.prefix, c.mask.ordered) == (0.0, 0.0)
    assert (c.drop_text, c.code_init, c.model.position_init) == (0.1, 0.0, "normal")
    assert c.text is None or c.text.length == 128  # docs/paper.md#text-length


def test_lambda_temperature_and_context_of_the_samplers():
    """docs/paper.md#presets, #guidance, #temperature, #context, #prediction-sampler."""
    samplers = {name: maskgit.get_config(name).sample for name in ("t2v", "nuwa", "bair", "k600")}
    own = {k: (s.guidance, s.steps, s.choice_temperature) for k, s in samplers.items()}
    assert own == {"t2v": (6, 24, 4), "nuwa": (0.1, 12, 4), "bair": (0, 24, 4), "k600": (0, 24, 4)}
    presets = {k: (s.guidance, s.steps, s.choice_temperature) for k, s in T2V.presets.items()}
    assert presets == {"nuwa": (0.1, 12, 4), "ablation": (6, 24, 4), "videos": (12, 48, 8)}
    plain = dict(schedule="cosine", temperature=1.0, top_k=0, top_p=1.0, min_p=0.0,
                 order="confidence", guidance_schedule="constant", guidance_limit=0.0,
                 guidance_min_p=0.0, guidance_interval=(0.0, 1.0))  # fmt: skip
    for sampler in (*samplers.values(), *T2V.presets.values()):
        assert {name: sampler[name] for name in plain} == plain
        assert not any(value is not None for value in sampler.continued.values())
    assert {sampler.context for sampler in samplers.values()} == {5}


def test_the_optimizer_of_prediction_is_that_of_table_7():
    """docs/paper.md#prediction-optimizer."""
    for name in ("bair", "k600"):
        c = maskgit.get_config(name)
        assert (c.data.batch, c.data.image_batch) == (512, 0)
        assert (c.optim.weight_decay, c.optim.clip, c.optim.warmup) == (1e-4, 10.0, 10_000)
