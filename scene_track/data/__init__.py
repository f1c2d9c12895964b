"""Files on disk to ``SceneBatch``: readers, windows, transforms, caches, synthetic footage."""
