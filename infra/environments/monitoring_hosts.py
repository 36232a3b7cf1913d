"""The two monitoring hosts of an AWS stack: their configuration, their permissions and their addresses."""

import json
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_random as random

from infra.components.alerting import Alerting
from infra.components.cluster import Cluster
from infra.components.host import Host, HostArgs, host_role
from infra.components.monitoring_access import MonitoringAccess, MonitoringAccessArgs
from infra.components.network import Layout, Network
from infra.components.private_bucket import PrivateBucket, PrivateBucketArgs
from infra.components.status_alarms import StatusAlarms, StatusAlarmsArgs
from infra.monitoring.alertmanager import alertmanager_config
from infra.monitoring.dashboards import dashboards
from infra.monitoring.grafana import provisioning
from infra.monitoring.prometheus import RULES, aws_jobs, prometheus_config
from infra.names import (
    ALERTMANAGER_PORT,
    COMPONENT_TAG,
    GRAFANA_PORT,
    HOST_FILES,
    PROMETHEUS_PORT,
    STACK_TAG,
    own_tags,
    stack_prefix,
)
from infra.settings import AwsSettings


@dataclass(frozen=True, slots=True)
class Around:
    """The parts of the stack that the hosts need."""

    plan: Layout
    network: Network
    cluster: Cluster
    alerting: Alerting
    materializer: bool
    """Whether a materialiser runs in the cluster."""


def declare_hosts(
    settings: AwsSettings, around: Around, prometheus_role: aws.iam.Role, here: pulumi.ResourceOptions
) -> dict[str, Any]:
    """Declare the hosts; returns their outputs for the stack."""
    stack = pulumi.get_stack()
    name, tags = stack_prefix(stack), own_tags(stack)
    plan = around.plan
    config = PrivateBucket(f"{name}-config", PrivateBucketArgs(True, {**tags, COMPONENT_TAG: "monitoring"}), here)
    prometheus = Host(
        "prometheus",
        _host(
            settings,
            around.network,
            config,
            tags,
            role="prometheus",
            address=plan.prometheus,
            cluster=settings.cluster_name,
            data_disk_gb=settings.data_disk_gb,
            files=_prometheus_files(settings, around),
            statements=[
                {
                    "Sid": "TellAlerts",
                    "Effect": "Allow",
                    "Action": "sns:Publish",
                    "Resource": around.alerting.topic_arn,
                },
                {
                    "Sid": "EncryptAlerts",
                    "Effect": "Allow",
                    "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
                    "Resource": around.alerting.key_arn,
                    "Condition": {"StringEquals": {"kms:ViaService": f"sns.{settings.region}.amazonaws.com"}},
                },
            ],
        ),
        prometheus_role,
        here,
    )
    secret_arn = _grafana_password(name, settings, tags, here)
    grafana = Host(
        "grafana",
        _host(
            settings,
            around.network,
            config,
            tags,
            role="grafana",
            address=plan.grafana,
            secret_arn=secret_arn,
            files=_grafana_files(plan.prometheus),
            statements=[
                {
                    "Sid": "ReadOwnPassword",
                    "Effect": "Allow",
                    "Action": "secretsmanager:GetSecretValue",
                    "Resource": secret_arn,
                }
            ],
        ),
        host_role("grafana", tags, here),
        here,
    )
    MonitoringAccess(
        "monitoring",
        MonitoringAccessArgs(
            prometheus=prometheus.security_group_id,
            grafana=grafana.security_group_id,
            cluster=around.cluster.security_group_id,
            operator_cidrs=settings.operator_cidrs,
            materializer=around.materializer,
            tags=tags,
        ),
        here,
    )
    StatusAlarms(
        name,
        StatusAlarmsArgs(
            stack=stack,
            hosts={"prometheus": prometheus.instance_id, "grafana": grafana.instance_id},
            topic_arn=around.alerting.topic_arn,
            tags=tags,
        ),
        here,
    )
    return {
        "prometheus": _address(settings, prometheus, PROMETHEUS_PORT),
        "grafana": _address(settings, grafana, GRAFANA_PORT),
        "grafanaPasswordCommand": pulumi.Output.concat(
            f"aws secretsmanager get-secret-value --region {settings.region} --secret-id ",
            secret_arn,
            " --query SecretString --output text",
        ),
    }


def _host(settings: AwsSettings, network: Network, bucket: PrivateBucket, tags: dict[str, str], **own: Any) -> HostArgs:
    """The arguments that both hosts share, and the host's own arguments."""
    return HostArgs(
        region=settings.region,
        zone=f"{settings.region}{settings.zones[0]}",
        vpc_id=network.vpc_id,
        subnet_id=network.hosts_subnet_id,
        public=bool(settings.operator_cidrs),
        instance_type=settings.host_type,
        disk_gb=settings.host_disk_gb,
        ways_out=network.ways_out,
        bucket=bucket,
        disposable=settings.disposable,
        mirror=settings.download_mirror,
        tags=tags,
        **own,
    )


def _prometheus_files(settings: AwsSettings, around: Around) -> dict[str, pulumi.Input[str]]:
    cluster = around.cluster
    jobs = aws_jobs(
        namespace=settings.namespace,
        app=settings.app_name,
        prometheus=around.plan.prometheus,
        grafana=around.plan.grafana,
        materializer=around.materializer,
        folder=HOST_FILES,
    )
    return {
        "prometheus.yml": prometheus_config(
            settings.scrape_interval,
            f"{HOST_FILES}/rules.yml",
            jobs,
            alertmanagers=[f"127.0.0.1:{ALERTMANAGER_PORT}"],
            labels={STACK_TAG: pulumi.get_stack()},  # so that alerts name their stack
            retention=settings.retention,
        ),
        "rules.yml": RULES.read_text(),
        "alertmanager.yml": around.alerting.topic_arn.apply(
            lambda arn: alertmanager_config(region=settings.region, topic_arn=arn)
        ),
        "kubeconfig": pulumi.Output.all(cluster.endpoint, cluster.certificate_authority).apply(
            lambda at: _kubeconfig(settings, endpoint=at[0], certificate_authority=at[1])
        ),
        "cluster-ca.crt": cluster.certificate_authority.apply(lambda text: b64decode(text).decode()),
    }


def _kubeconfig(settings: AwsSettings, *, endpoint: str, certificate_authority: str) -> str:
    """Prometheus's kubeconfig: it gets a new token with its instance role each time."""
    arguments = ["--region", settings.region, "eks", "get-token", "--cluster-name", settings.cluster_name]
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "eks", "cluster": {"server": endpoint, "certificate-authority-data": certificate_authority}}
        ],
        "users": [
            {
                "name": "role",
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1beta1",
                        "command": "/usr/local/bin/aws",
                        "args": [*arguments, "--output", "json"],
                        "interactiveMode": "Never",
                    }
                },
            }
        ],
        "contexts": [{"name": "eks", "context": {"cluster": "eks", "user": "role"}}],
        "current-context": "eks",
    }
    return json.dumps(document, indent=1) + "\n"


def _grafana_files(prometheus: str) -> dict[str, pulumi.Input[str]]:
    own = provisioning(prometheus_url=f"http://{prometheus}:{PROMETHEUS_PORT}", dashboards=f"{HOST_FILES}/dashboards")
    return {
        **{f"provisioning/{path}": text for path, text in own.items()},
        **{f"dashboards/{path}": text for path, text in dashboards().items()},
    }


def _grafana_password(
    name: str, settings: AwsSettings, tags: dict[str, str], opts: pulumi.ResourceOptions
) -> pulumi.Output[str]:
    """The ARN of the secret that holds a generated admin password."""
    password = random.RandomPassword("grafana-admin", length=32, special=False)
    secret = aws.secretsmanager.Secret(
        "grafana-admin",
        name_prefix=f"{name}/grafana-admin-",
        description="Password of Grafana's user admin",
        recovery_window_in_days=0 if settings.disposable else 30,
        tags={**tags, COMPONENT_TAG: "grafana"},
        opts=opts,
    )
    aws.secretsmanager.SecretVersion("grafana-admin", secret_id=secret.id, secret_string=password.result, opts=opts)
    return secret.arn


def _address(settings: AwsSettings, host: Host, port: int) -> pulumi.Output[str]:
    """The host's URL; for a private host, the command that forwards it to http://127.0.0.1:PORT."""
    if settings.operator_cidrs:
        return pulumi.Output.concat("http://", host.public_ip, f":{port}")
    parameters = f'{{"portNumber":["{port}"],"localPortNumber":["{port}"]}}'
    return pulumi.Output.concat(
        f"aws ssm start-session --region {settings.region} --target ",
        host.instance_id,
        f" --document-name AWS-StartPortForwardingSession --parameters '{parameters}'",
    )
