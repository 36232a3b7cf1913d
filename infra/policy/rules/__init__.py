"""The rules, a module per subject: pure functions from a resource's inputs to what is wrong with them."""
