"""alertmanager.yml, rendered: what is told to whom, how often, and what silences what."""

import yaml

# SNS takes 100 characters, which Alertmanager cuts to.
SUBJECT = (
    "{{ with .CommonLabels.stack }}{{ . }}: {{ end }}{{ .CommonLabels.alertname }} {{ .Status }}"
    "{{ if gt (len .Alerts) 1 }} ({{ len .Alerts }}){{ end }}"
)
MESSAGE = (
    "{{ range .Alerts }}{{ .Labels.severity }}, {{ .Status }}: {{ .Annotations.summary }}\n"
    "What to do: {{ .Annotations.remedy }}\n"
    'Since {{ .StartsAt.UTC.Format "2006-01-02 15:04:05" }} UTC'
    '{{ if eq .Status "resolved" }}, over since {{ .EndsAt.UTC.Format "2006-01-02 15:04:05" }}{{ end }}\n'
    "{{ range .Labels.SortedPairs }}{{ .Name }}={{ .Value }} {{ end }}\n\n{{ end }}"
)


def alertmanager_config(*, region: str, topic_arn: str) -> str:
    """The configuration file's text: everything goes to one SNS topic, signed by the host's own role."""
    document = {
        "route": {
            "receiver": "topic",
            "group_by": ["alertname", "job"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "24h",
            "routes": [{"matchers": ['severity="page"'], "receiver": "topic", "repeat_interval": "1h"}],
        },
        "inhibit_rules": [
            # A service that is down explains its errors, its slowness, its silence, and its targets.
            _silences('alertname="ServiceDown"', 'alertname=~"Service(Errors|Slow)|NoPredictions|.+Burn(Fast|Slow)"'),
            _silences('alertname="ServiceDown"', 'alertname="TargetDown",job="service"'),
            # Of one objective, what pages says all that the ticket would.
            _silences('severity="page",objective=~".+"', 'severity="ticket",objective=~".+"', "objective"),
            # A node that is gone takes with it all that was asked there.
            _silences(
                'alertname="TargetDown",job="kubelet"',
                'alertname="TargetDown",job=~"resource|cadvisor|service"',
                "node",
            ),
        ],
        "receivers": [
            {
                "name": "topic",
                "sns_configs": [
                    {
                        "topic_arn": topic_arn,
                        "sigv4": {"region": region},
                        "subject": SUBJECT,
                        "message": MESSAGE,
                        "send_resolved": True,
                    }
                ],
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False, width=1000)


def _silences(source: str, target: str, *equal: str) -> dict[str, list[str]]:
    """While an alert matches `source`, those that match `target` (and share the labels `equal`) are not told."""
    rule = {"source_matchers": source.split(","), "target_matchers": target.split(",")}
    return rule | {"equal": list(equal)} if equal else rule
