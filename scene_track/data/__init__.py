"""Files on disk to ``SceneBatch``: readers, clips, transforms, caches."""
