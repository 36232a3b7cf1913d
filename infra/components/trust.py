"""Who may assume a role: one AWS service."""

import json


def trusted(service: str, actions: str | list[str] = "sts:AssumeRole") -> str:
    """The trust policy that lets this service take the role."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": actions}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
