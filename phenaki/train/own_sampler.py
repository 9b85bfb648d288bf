"""Whether a model can sample as its config says, before it is trained for it."""

from phenaki.errors import UserError
from phenaki.pipeline import Phenaki
from phenaki.sampling import orders
from phenaki.sampling.options import resolve
from phenaki.sampling.windows import check_context


def check(model: Phenaki) -> None:
    """Checks the options of `config.sample` and of each preset; no parameter is needed.

    Raises:
        UserError: with some of them the first sample would fail, or guidance do nothing.
    """
    if model.spec.frames > model.spec.patch[0]:
        check_context(model.spec, model.context)
    for preset in (None, *model.defaults.presets):
        for continues in (False, True):
            chosen = resolve(model.defaults, preset, continues)
            orders.ranks(chosen.order, model.spec.grid(), chosen.static().calibrated)
            model.check_texts([None], chosen)
            if float(chosen.guidance) and not chosen.guided_steps():
                where = f"config.presets.{preset}" if preset else "config.sample"
                raise UserError(
                    f"{where}.guidance_interval={chosen.guidance_interval} holds none of its "
                    f"{chosen.steps} steps; nearest is (0, 1)."
                )
