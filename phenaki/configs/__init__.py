"""The presets, as `from phenaki.configs import cvivit`, in a clone and in a wheel."""

from typing import TYPE_CHECKING, Any

from phenaki.io import shipped

__path__ = [str(shipped.folder("configs"))]

if TYPE_CHECKING:  # the modules lie elsewhere

    def __getattr__(name: str) -> Any: ...
