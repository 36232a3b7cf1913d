"""Renders alertmanager.yml: receivers, repetition, and inhibition rules."""

import yaml

# SNS allows 100 characters; Alertmanager truncates the subject to this length.
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
    """The configuration file's text: all alerts go to one SNS topic, published with the host's own role."""
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
            # If the service is down, alerts about its errors, latency, missing requests and targets are redundant.
            _silences('alertname="ServiceDown"', 'alertname=~"Service(Errors|Slow)|NoPredictions|.+Burn(Fast|Slow)"'),
            _silences('alertname="ServiceDown"', 'alertname="TargetDown",job="service"'),
            # For each objective, the page makes the ticket redundant.
            _silences('severity="page",objective=~".+"', 'severity="ticket",objective=~".+"', "objective"),
            # If a node is gone, alerts about the other targets on it are redundant.
            _silences(
                'alertname="TargetDown",job="kubelet"',
                'alertname="TargetDown",job=~"resource|cadvisor|service|materializer"',
                "node",
            ),
            # If the materialiser is the cause, what the service notices of it is redundant.
            *(
                _silences(source, 'alertname=~"FeatureLookupsFail|FeatureStoreStale"')
                for source in ('alertname=~"Materializer(Fails|Missing)"', 'alertname="TargetDown",job="materializer"')
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
    """While an alert matches `source`, alerts that match `target` (with the same labels `equal`) are not sent."""
    rule = {"source_matchers": source.split(","), "target_matchers": target.split(",")}
    return rule | {"equal": list(equal)} if equal else rule
