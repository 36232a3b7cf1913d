"""The pipeline: from raw tables to a gated model bundle."""
