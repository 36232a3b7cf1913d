"""The infrastructure: one Pulumi program, its provider for one machine, and the `atlas` command."""
