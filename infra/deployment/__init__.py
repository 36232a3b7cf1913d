"""Bringing a stack up and looking at it: checks before, images, the smoke test after, the pods."""
