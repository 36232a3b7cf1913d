"""What GitHub's workflows do besides deploying: hold the pipeline to the commit, tell what changes, try the image."""


class StepError(Exception):
    """A step of a workflow can't do what it is for; the message names the cause and the remedy."""
