"""Everything in an AWS account: network, cluster, registry, image, the service, and the two monitoring hosts."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
import pulumi_random as random

from infra.bundle import bundle_manifest
from infra.components.alerting import Alerting, AlertingArgs
from infra.components.bounded_roles import bound_roles
from infra.components.cluster import Cluster, ClusterArgs
from infra.components.host import Host, HostArgs, host_role
from infra.components.image import Image, ImageArgs
from infra.components.monitoring_access import MonitoringAccess, MonitoringAccessArgs
from infra.components.network import Layout, Network, NetworkArgs, layout
from infra.components.private_bucket import PrivateBucket, PrivateBucketArgs
from infra.components.registry import Registry, RegistryArgs
from infra.components.service_identity import ServiceIdentity, ServiceIdentityArgs
from infra.components.workload import Workload, WorkloadArgs
from infra.errors import SettingsError
from infra.monitoring.alertmanager import alertmanager_config
from infra.monitoring.dashboards import dashboards
from infra.monitoring.grafana import provisioning
from infra.monitoring.prometheus import RULES, aws_jobs, prometheus_config
from infra.names import (
    ALERTMANAGER_PORT,
    COMPONENT_TAG,
    GRAFANA_PORT,
    HOST_FILES,
    ORGANIZATION,
    PROJECT,
    PROMETHEUS_PORT,
    SERVICE_PORT,
    STACK_TAG,
    image_repository,
    own_tags,
    stack_prefix,
)
from infra.settings import AwsSettings

PROMETHEUS_GROUP = "atlas-prometheus"


def deploy(settings: AwsSettings, repository: Path) -> dict[str, Any]:
    """Declare the stack; returns its outputs.

    Raises SettingsError when an image must be built and there is no bundle for it.
    """
    if settings.image is None:
        bundle_manifest(repository / settings.bundle)
    stack = pulumi.get_stack()
    name = stack_prefix(stack)
    tags = own_tags(stack)
    plan = layout(settings.vpc_cidr)
    bound_roles(stack, settings.permissions_boundary)
    here = in_account(settings)

    network = Network(
        name,
        NetworkArgs(
            region=settings.region,
            zones=settings.zones,
            cidr=settings.vpc_cidr,
            nat=settings.nat,
            public_hosts=bool(settings.operator_cidrs),
            cluster_name=settings.cluster_name,
            tags=tags,
        ),
        here,
    )
    data = PrivateBucket(f"{name}-data", PrivateBucketArgs(settings.disposable, {**tags, COMPONENT_TAG: "data"}), here)
    registry = declare_registry(settings, here)
    alerting = Alerting(name, AlertingArgs(stack, settings.alert_email, settings.budget_usd, tags), here)
    prometheus_role = host_role("prometheus", tags, here)
    cluster = Cluster(
        name,
        ClusterArgs(
            name=settings.cluster_name,
            version=settings.kubernetes_version,
            vpc_id=network.vpc_id,
            public_subnet_ids=network.public_subnet_ids,
            private_subnet_ids=network.private_subnet_ids,
            ways_out=network.ways_out,
            api_access_cidrs=settings.api_access_cidrs,
            admins=settings.admin_principals,
            groups={"prometheus": (PROMETHEUS_GROUP, prometheus_role.arn)},
            node_group_name=settings.node_group_name,
            node_type=settings.node_type,
            nodes=(settings.node_min, settings.node_desired, settings.node_max),
            log_retention_days=settings.log_retention_days,
            tags=tags,
        ),
        here,
    )
    identity = ServiceIdentity(
        f"{name}-service",
        ServiceIdentityArgs(
            cluster_name=settings.cluster_name,
            namespace=settings.namespace,
            service_account=settings.app_name,
            bucket_arn=data.arn,
            cluster=cluster.ready[0],
            tags=tags,
        ),
        here,
    )
    if settings.image is None:
        image: pulumi.Input[str] = Image(
            name, ImageArgs(repository, settings.bundle, settings.base_image, registry), here
        ).reference
    elif settings.image == "promoted":
        image = _promoted()
    else:
        image = settings.image

    in_cluster = kubernetes.Provider(
        "kubernetes",
        # The output itself: wrapped in an `apply`, the provider would lose its dependency on the cluster.
        kubeconfig=cluster.kubeconfig,
        enable_server_side_apply=True,
    )
    workload = Workload(
        settings.app_name,
        WorkloadArgs(
            app=settings.app_name,
            namespace=settings.namespace,
            service_name=settings.service_name,
            service_account=settings.app_name,
            secret_name=settings.secret_name,
            image=image,
            replicas=settings.replicas,
            max_replicas=settings.max_replicas,
            workers=settings.workers,
            memory_mib=settings.pod_memory_mib,
            settings=_service_settings(settings),
            mlflow_tracking_uri=settings.mlflow_tracking_uri,
            mlflow_token=pulumi.Output.secret(settings.mlflow_token.get_secret_value())
            if settings.mlflow_token
            else None,
            callers=settings.service_cidrs,
            certificate_arn=settings.certificate_arn,
            node_cidrs=plan.private,
            prometheus_cidr=f"{plan.prometheus}/32",
            prometheus_group=PROMETHEUS_GROUP,
            tags={**tags, COMPONENT_TAG: "service"},
        ),
        pulumi.ResourceOptions(
            providers={"kubernetes": in_cluster},
            # Made after, and above all deleted before: its load balancer can only be taken down while the cluster has
            # nodes, credentials and a way out, and a pod older than its identity has none.
            depends_on=[*cluster.ready, identity.association, *network.ways_out],
        ),
    )

    config = PrivateBucket(f"{name}-config", PrivateBucketArgs(True, {**tags, COMPONENT_TAG: "monitoring"}), here)
    prometheus = Host(
        "prometheus",
        _host(
            settings,
            network,
            config,
            tags,
            role="prometheus",
            address=plan.prometheus,
            cluster=settings.cluster_name,
            data_disk_gb=settings.data_disk_gb,
            files=_prometheus_files(settings, plan, cluster, alerting),
            statements=[
                {"Sid": "TellAlerts", "Effect": "Allow", "Action": "sns:Publish", "Resource": alerting.topic_arn}
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
            network,
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
            cluster=cluster.security_group_id,
            operator_cidrs=settings.operator_cidrs,
            tags=tags,
        ),
        here,
    )

    scheme = "https" if settings.certificate_arn else "http"
    return {
        "service": pulumi.Output.concat(f"{scheme}://", settings.hostname or workload.hostname, f":{SERVICE_PORT}"),
        "loadBalancer": workload.hostname,
        "image": image,
        "dvcRemote": pulumi.Output.concat("s3://", data.bucket, "/dvc"),
        "imageRepository": registry.url,
        "cluster": settings.cluster_name,
        "kubeconfigCommand": f"aws eks update-kubeconfig --region {settings.region} --name {settings.cluster_name}",
        "prometheus": _address(settings, prometheus, PROMETHEUS_PORT),
        "grafana": _address(settings, grafana, GRAFANA_PORT),
        "grafanaPasswordCommand": pulumi.Output.concat(
            f"aws secretsmanager get-secret-value --region {settings.region} --secret-id ",
            secret_arn,
            " --query SecretString --output text",
        ),
        "alertTopic": alerting.topic_arn,
    }


def in_account(settings: AwsSettings) -> pulumi.ResourceOptions:
    """With these, a resource is made in the stack's region, and in no other account than the stack's."""
    provider = aws.Provider(
        "aws",
        region=settings.region,
        allowed_account_ids=[settings.account_id] if settings.account_id else None,
    )
    return pulumi.ResourceOptions(providers={"aws": provider})


def declare_registry(settings: AwsSettings, here: pulumi.ResourceOptions) -> Registry:
    """The stack's registry; `atlas promote` declares it alone, since an image is there before what runs it."""
    stack = pulumi.get_stack()
    repository = image_repository(stack, settings.app_name)
    args = RegistryArgs(repository, settings.disposable, settings.images_kept, own_tags(stack))
    return Registry(stack_prefix(stack), args, here)


def _promoted() -> pulumi.Output[str]:
    """The image that the stack runs already, by its own outputs: a failed `up` leaves them as they were."""
    stack = pulumi.get_stack()
    own = pulumi.StackReference("promoted", stack_name=f"{ORGANIZATION}/{PROJECT}/{stack}")

    def there(image: str | None) -> str:
        if not image:
            raise SettingsError(f"nothing was promoted to {stack} yet: `atlas promote dev {stack}` brings an image")
        return image

    return own.get_output("image").apply(there)


def _service_settings(settings: AwsSettings) -> dict[str, str]:
    """What differs from the image's own settings (service/settings.py)."""
    given = {
        "LOG_LEVEL": settings.log_level,
        "WORKERS": str(settings.workers),
        "XDG_CACHE_HOME": "/tmp/cache",  # noqa: S108 - the only place that can be written
    }
    if settings.model_uri is not None:
        given["MODEL_URI"] = settings.model_uri
    if settings.mlflow_tracking_uri is not None:
        given["MLFLOW_TRACKING_URI"] = settings.mlflow_tracking_uri
    return given


def _host(settings: AwsSettings, network: Network, bucket: PrivateBucket, tags: dict[str, str], **own: Any) -> HostArgs:
    """What both hosts have in common, and what is the host's own."""
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


def _prometheus_files(
    settings: AwsSettings, plan: Layout, cluster: Cluster, alerting: Alerting
) -> dict[str, pulumi.Input[str]]:
    jobs = aws_jobs(
        namespace=settings.namespace,
        app=settings.app_name,
        prometheus=plan.prometheus,
        grafana=plan.grafana,
        folder=HOST_FILES,
    )
    return {
        "prometheus.yml": prometheus_config(
            settings.scrape_interval,
            f"{HOST_FILES}/rules.yml",
            jobs,
            alertmanagers=[f"127.0.0.1:{ALERTMANAGER_PORT}"],
            labels={STACK_TAG: pulumi.get_stack()},  # alerts say where they are from
            retention=settings.retention,
        ),
        "rules.yml": RULES.read_text(),
        "alertmanager.yml": alerting.topic_arn.apply(
            lambda arn: alertmanager_config(region=settings.region, topic_arn=arn)
        ),
        "kubeconfig": pulumi.Output.all(cluster.endpoint, cluster.certificate_authority).apply(
            lambda at: _kubeconfig(settings, endpoint=at[0], certificate_authority=at[1])
        ),
        "cluster-ca.crt": cluster.certificate_authority.apply(lambda text: b64decode(text).decode()),
    }


def _kubeconfig(settings: AwsSettings, *, endpoint: str, certificate_authority: str) -> str:
    """Prometheus's way in: its instance role, asked for a token each time."""
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
    """Its URL, or on a private host the command that makes it http://127.0.0.1:PORT."""
    if settings.operator_cidrs:
        return pulumi.Output.concat("http://", host.public_ip, f":{port}")
    parameters = f'{{"portNumber":["{port}"],"localPortNumber":["{port}"]}}'
    return pulumi.Output.concat(
        f"aws ssm start-session --region {settings.region} --target ",
        host.instance_id,
        f" --document-name AWS-StartPortForwardingSession --parameters '{parameters}'",
    )
