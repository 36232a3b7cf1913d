"""Deploying, checking and removing stacks: checks before `up`, images, the smoke test, the pods' state."""
