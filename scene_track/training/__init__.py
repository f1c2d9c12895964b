"""The LightningModule and what surrounds it: freezing, parameter groups, schedules, checkpoints."""
