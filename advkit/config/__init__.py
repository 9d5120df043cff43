"""Settings, methods and presets, and how the layers of a configuration become one."""

__all__ = ["idle", "location", "machine", "methods", "printed", "resolve", "settings"]
