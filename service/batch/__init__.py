"""`atlas predict`: predictions for whole files, a chunk of rows at a time, with the service's own predictor."""
