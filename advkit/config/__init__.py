"""Settings, methods and presets, and how the layers of a configuration become one."""

__all__ = [
    "coercion",
    "idle",
    "location",
    "machine",
    "methods",
    "origins",
    "printed",
    "resolve",
    "settings",
    "stored",
]
