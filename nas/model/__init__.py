"""Finished students: the model class, its folder, published checkpoints.

Importing it loads the plugins that are installed or named in `NAS_PLUGINS`, so that a saved decoder with their parts
loads in any script.
"""

from nas.machine.plugins import load_plugins
from nas.model.turbo_vaed import TurboVAED

__all__ = ["TurboVAED"]

load_plugins()
