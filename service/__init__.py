"""The REST service that answers with the bundle's model."""
