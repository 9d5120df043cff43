"""Weight space: what happens to the parameters beside the optimizer's step."""

__all__ = ["awp", "ema", "swa"]
