"""The REST service that makes predictions with the bundle's model."""
