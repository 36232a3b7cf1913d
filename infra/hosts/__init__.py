"""The two monitoring hosts: how cloud-init sets them up on a plain Ubuntu image."""
