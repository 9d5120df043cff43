"""Images in memory, their files, augmentation, splits and batches."""
