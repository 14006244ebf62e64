"""Images: from a folder or an archive to arrays, splits, batches and augmentation."""
