"""alertmanager.yml, rendered: what is told to whom, how often, and what silences what."""

import yaml


def alertmanager_config(*, region: str, topic_arn: str) -> str:
    """The configuration file's text: everything goes to one SNS topic, signed by the host's own role."""
    subject = "[{{ .Status | toUpper }}] {{ .CommonLabels.alertname }} ({{ .Alerts | len }})"
    message = (
        "{{ range .Alerts }}{{ .Labels.severity }}: {{ .Annotations.summary }}\n"
        "What to do: {{ .Annotations.remedy }}\n"
        'Since {{ .StartsAt.UTC }}{{ if eq .Status "resolved" }}, over since {{ .EndsAt.UTC }}{{ end }}\n\n{{ end }}'
    )
    document = {
        "route": {
            "receiver": "topic",
            "group_by": ["alertname", "job"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": [{"matchers": ['severity="page"'], "receiver": "topic", "repeat_interval": "1h"}],
        },
        "inhibit_rules": [
            # A service that is down explains its errors, its slowness and its silence.
            {
                "source_matchers": ['alertname="ServiceDown"'],
                "target_matchers": ['alertname=~"ServiceErrors|ServiceSlow|NoPredictions|TargetDown|.*BudgetBurn.*"'],
            },
            # The fast burn says what the slow one would.
            {
                "source_matchers": ['severity="page"'],
                "target_matchers": ['severity="ticket"'],
                "equal": ["alertname", "job", "instance"],
            },
        ],
        "receivers": [
            {
                "name": "topic",
                "sns_configs": [
                    {
                        "topic_arn": topic_arn,
                        "sigv4": {"region": region},
                        "subject": subject,
                        "message": message,
                        "send_resolved": True,
                    }
                ],
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)
