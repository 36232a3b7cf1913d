"""The feature store: feature views, their offline join for training, and the online store that the service reads.

The terms are Feast's: entity, feature view, event timestamp, ttl, materialize, point-in-time join (docs/features.md).
"""
