"""What each stage gives the training loop: its networks and step, and how the run goes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from phenaki.train.health import HealthOptions

# Sections of a config that define what is minimised.
OBJECTIVE = ("loss", "gan", "features", "mask", "labels", "prefix")


class Stage(NamedTuple):
    """What the loop trains."""

    model: Any
    init: Callable[[jax.Array], Any]  # key -> TrainState
    step: Callable  # pure: (state, frozen, batch, key) -> (state, metrics)
    frozen: Any  # parameters of other networks that the step needs
    loss: Any = None  # of stage 1: its TokenizerLoss


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a training run goes. Intervals are in steps; a step's micro-batches count as one."""

    stored: Mapping[str, Any]  # the plain config, written to config.json and compared on resuming
    seed: int
    steps: int
    log_every: int
    save_every: int
    sample_every: int
    keep: int  # checkpoints
    from_step: int  # to resume from, once; 0: the newest checkpoint
    mesh: Mapping[str, int]  # see sharding.make_mesh
    batch_sizes: Mapping[str, int]  # by field of config.data; of all hosts together
    accumulate: int  # micro-batches per step
    objective: Mapping[str, Any]  # the sections that define the loss; see SkipUpdates
    joins: int | None  # step at which the discriminator joins; None: there is none
    decay: int | None  # step at which the learning rate reaches 0; None: never
    spike: float  # see SkipUpdates
    patience: int
    max_rollbacks: int
    hang_minutes: float  # see Watchdog
    health: HealthOptions

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "RunOptions":
        """Those of the plain config `fields` of any stage, as its run stores it."""
        train, guard, data = fields["train"], fields["guard"], fields["data"]
        return cls(
            stored=fields,
            seed=fields["seed"],
            steps=train["steps"],
            log_every=train["log_every"],
            save_every=train["save_every"],
            sample_every=train["sample_every"],
            keep=train["keep"],
            from_step=train.get("from_step", 0),  # absent from configs of earlier versions
            mesh=fields["mesh"],
            batch_sizes={name: data[name] for name in ("batch", "image_batch")},
            accumulate=fields["optim"]["accumulate"],
            objective={name: fields[name] for name in OBJECTIVE if name in fields},
            joins=_joins(fields),
            decay=fields["optim"]["decay"],
            spike=guard["spike"],
            patience=guard["patience"],
            max_rollbacks=guard["tries"],
            hang_minutes=guard["hang_minutes"],
            health=HealthOptions.of(fields),
        )

    def due(self, every: int, step: int) -> bool:
        """Whether what happens `every` so many steps, and at the end, happens at `step`."""
        return step == self.steps or step % every == 0


def _joins(fields: Mapping[str, Any]) -> int | None:
    return fields["gan"]["start"] if fields.get("loss", {}).get("adversarial") else None
