"""What GitHub's workflows do besides deploying: hold the pipeline to the commit, tell what changes, try the image."""
