"""The trust policy of a role that an AWS service assumes."""

import json


def trusted(service: str, actions: str | list[str] = "sts:AssumeRole") -> str:
    """The trust policy that lets this service assume the role."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": actions}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
