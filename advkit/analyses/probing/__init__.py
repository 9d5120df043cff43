"""Questions to a model: gradients, landscapes, the masking checks."""
