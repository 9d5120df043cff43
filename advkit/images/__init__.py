"""Images in memory, their files, augmentation, splits and batches."""

__all__ = [
    "ahead",
    "augment",
    "batches",
    "decode",
    "extra",
    "files",
    "image_set",
    "listing",
    "npz",
    "split",
    "stored",
]
