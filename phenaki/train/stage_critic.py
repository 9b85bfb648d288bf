"""The critic's training as a call of the one loop: beside a frozen generator."""

from pathlib import Path

from ml_collections import ConfigDict

from phenaki import pipeline
from phenaki.data import batches
from phenaki.errors import UserError, one_of
from phenaki.models import factory
from phenaki.sampling import schedules
from phenaki.train import critic as step_critic
from phenaki.train import loop, stages, state

SHARED = ("video", "tokenizer", "model", "text", "fingerprint", "sample", "presets")


def with_generator(config: ConfigDict, model: pipeline.Phenaki) -> ConfigDict:
    """The critic's config with what it takes from its generator, as its run stores it."""
    theirs = model.config.to_dict()
    shared = {name: theirs[name] for name in SHARED if name in theirs}
    data = theirs["data"] | config.data.to_dict()
    return ConfigDict({**config.to_dict(), **shared, "data": data, "generator": model.generator})


def critic_stage(config: ConfigDict, frozen: dict) -> stages.Stage:
    """The critic of `config`, which has its generator's sizes (see `with_generator`).

    `frozen` has the parameters "tokenizer", "maskgit" and, where captions are encoded in the step,
    "text".
    """
    critic, generator = factory.critic(config), factory.maskgit(config)
    if config.labels not in step_critic.LABELS:
        raise UserError(
            f"config.labels={config.labels!r} must be one of {', '.join(step_critic.LABELS)}."
        )
    optimizer = stages.make_optimizer(config)
    encode, embed = stages.make_encoders(config)
    step = step_critic.make_step(
        critic,
        generator,
        optimizer,
        encode=encode,
        embed=embed,
        grid=factory.video_spec(config).grid(),
        drop_text=config.drop_text,
        prefix=config.prefix,
        ema=config.optim.ema,
        accumulate=config.optim.accumulate,
        label=step_critic.LABELS[config.labels],
        schedule=one_of("config.mask.schedule", config.mask.schedule, schedules.SCHEDULES),
    )

    def init(key):
        tokens, text = stages.example(config)
        params = critic.init(key, tokens, text if critic.reads_text else None)["params"]
        own = {name: value for name, value in params.items() if name != "trunk"}
        return state.create(own, optimizer)

    return stages.Stage(critic, init, step, frozen)


def train_critic(config: ConfigDict, generator: str | Path, workdir: str | Path, devices=None):
    """Trains the critic of `config` (configs/critic.py) beside the generator of a run or bundle."""
    model = pipeline.Phenaki.load(generator)
    config = with_generator(config, model)
    frozen = {name: model.params[name] for name in ("tokenizer", "maskgit")}
    if config.text and not config.text.cached:
        frozen["text"] = model.params["text"]
    stage = critic_stage(config, frozen)
    shown = batches.captions(config, stages.SHOWN) if config.text else [None] * stages.SHOWN

    def sample(current, frozen, index, folder):
        model.params |= frozen
        critic = pipeline.Critic(stage.model, current.ema)
        videos = model.generate(shown, seed=0, critic=critic)
        pictures = stages.write_samples(folder, f"{index:07d}", videos, shown, model.spec.fps)
        return pictures, stages.measure_alignment(config, model, critic=critic)

    return loop.run(
        config,
        workdir,
        init=stage.init,
        step=stage.step,
        frozen=stage.frozen,
        batches=stages.make_batches(config, config.text, model.params.get("text")),
        sample=sample,
        devices=devices,
    )
