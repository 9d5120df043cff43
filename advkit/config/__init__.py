"""Settings, methods and presets, and how the layers of a configuration become one."""

__all__ = ["location", "machine", "methods", "resolve", "settings"]
