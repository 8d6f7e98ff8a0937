"""Finished students: the model class, its folder, published checkpoints."""

from nas.model.turbo_vaed import TurboVAED

__all__ = ["TurboVAED"]
