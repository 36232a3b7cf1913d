"""Everything in an AWS account: network, cluster, registry, image, the service, and the two monitoring hosts."""

from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from infra.api_keys import FILE_NAME, read_api_keys
from infra.bundle import bundle_manifest, has_views
from infra.components.alerting import Alerting, AlertingArgs
from infra.components.bounded_roles import bound_roles
from infra.components.cluster import Cluster, ClusterArgs
from infra.components.feature_table import FeatureTable, FeatureTableArgs
from infra.components.flow_logs import FlowLogs, FlowLogsArgs
from infra.components.host import host_role
from infra.components.image import Image, ImageArgs
from infra.components.network import Network, NetworkArgs, layout
from infra.components.pod_identity import PodIdentity, PodIdentityArgs, materializer_policy, service_policy
from infra.components.private_bucket import PrivateBucket, PrivateBucketArgs
from infra.components.registry import Registry, RegistryArgs
from infra.components.workload.args import MaterializerArgs, WorkloadArgs
from infra.components.workload.component import Workload
from infra.components.workload.pods import KEYS_FOLDER
from infra.environments.monitoring_hosts import Around, declare_hosts
from infra.errors import SettingsError
from infra.image_options import check_views
from infra.names import (
    COMPONENT_TAG,
    ORGANIZATION,
    PROJECT,
    SERVICE_PORT,
    VIEW_FILES,
    flow_logs,
    image_repository,
    materializer,
    own_tags,
    stack_prefix,
)
from infra.settings import AwsSettings

PROMETHEUS_GROUP = "atlas-prometheus"


def deploy(settings: AwsSettings, repository: Path) -> dict[str, Any]:
    """Declare the stack; returns its outputs.

    Raises SettingsError when an image must be built, but there is no bundle; or when the file of the API keys, or of a
    view, can't be used.
    """
    with_features = settings.feature_store
    if settings.image is None:
        # With an image that exists already (a promotion, a rollback) nobody knows its bundle: the setting alone
        # decides, so that a rollback never deletes the table.
        with_features &= has_views(bundle_manifest(repository / settings.bundle))
        if with_features:
            check_views(repository)
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
    FlowLogs(
        f"{name}-flow-logs",
        FlowLogsArgs(network.vpc_id, flow_logs(stack), settings.log_retention_days, tags),
        here,
    )
    data = PrivateBucket(f"{name}-data", PrivateBucketArgs(settings.disposable, {**tags, COMPONENT_TAG: "data"}), here)
    view_files = pulumi.Output.concat("s3://", data.bucket, f"/{VIEW_FILES}")
    features = None
    if with_features:
        features = FeatureTable(f"{name}-features", FeatureTableArgs(settings.region, settings.disposable, tags), here)
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

    def identity(kind: str, account: str, policy: pulumi.Input[str], part: str) -> pulumi.Resource:
        """The association that gives the pods of a service account their role."""
        args = PodIdentityArgs(
            cluster_name=settings.cluster_name,
            namespace=settings.namespace,
            service_account=account,
            policy=policy,
            cluster=cluster.ready[0],
            tags={**tags, COMPONENT_TAG: part},
        )
        return PodIdentity(kind, f"{name}-{kind.lower()}", args, here).association

    own = service_policy(data.arn, features.arn if features else None)
    associations = [identity("Service", settings.app_name, own, "service")]
    if features:
        writer = materializer_policy(data.arn, features.arn)
        associations.append(identity("Materializer", materializer(settings.app_name), writer, "features"))
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
        # The output itself: with an `apply` around the provider, it would lose its dependency on the cluster.
        kubeconfig=cluster.kubeconfig,
        enable_server_side_apply=True,
        # Otherwise a changed Secret is replaced, also if it isn't immutable: pods would lose their API keys' file.
        enable_secret_mutable=True,
        # It asks the API at once. Refused before the deploying role's access entry exists, it would take the cluster
        # for unreachable for the whole run.
        opts=pulumi.ResourceOptions(depends_on=cluster.ready),
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
            rollout_seconds=settings.rollout_seconds,
            settings={
                **_service_settings(settings, plan.prometheus),
                **({"FEATURE_STORE": features.address} if features else {}),
            },
            mlflow_tracking_uri=settings.mlflow_tracking_uri,
            mlflow_token=pulumi.Output.secret(settings.mlflow_token.get_secret_value())
            if settings.mlflow_token
            else None,
            api_keys=None if settings.api_keys_file is None else read_api_keys(repository / settings.api_keys_file),
            materializer=None
            if features is None
            else MaterializerArgs(
                store=features.address,
                files=view_files,
                region=settings.region,
                speed=settings.replay_speed,
                memory_mib=settings.materializer_memory_mib,
            ),
            callers=settings.service_cidrs,
            certificate_arn=settings.certificate_arn,
            node_cidrs=plan.private,
            prometheus_cidr=f"{plan.prometheus}/32",
            prometheus_group=PROMETHEUS_GROUP,
            tags={**tags, COMPONENT_TAG: "service"},
        ),
        pulumi.ResourceOptions(
            providers={"kubernetes": in_cluster},
            # Created after these, and deleted before them: the load balancer can only be deleted while the cluster has
            # nodes, credentials and routes to AWS. And a pod that starts before its identity exists has no credentials.
            depends_on=[*cluster.ready, *associations, *network.ways_out],
        ),
    )

    hosts = declare_hosts(settings, Around(plan, network, cluster, alerting, with_features), prometheus_role, here)

    scheme = "https" if settings.certificate_arn else "http"
    return {
        "service": pulumi.Output.concat(f"{scheme}://", settings.hostname or workload.hostname, f":{SERVICE_PORT}"),
        "loadBalancer": workload.hostname,
        "image": image,
        "dvcRemote": pulumi.Output.concat("s3://", data.bucket, "/dvc"),
        "imageRepository": registry.url,
        "cluster": settings.cluster_name,
        "kubeconfigCommand": f"aws eks update-kubeconfig --region {settings.region} --name {settings.cluster_name}",
        **hosts,
        "alertTopic": alerting.topic_arn,
        **({"featureStore": features.address, "featureFiles": view_files} if features else {}),
    }


def in_account(settings: AwsSettings) -> pulumi.ResourceOptions:
    """Options with which resources are created in the stack's region, and only in the stack's account."""
    provider = aws.Provider(
        "aws",
        region=settings.region,
        allowed_account_ids=[settings.account_id] if settings.account_id else None,
    )
    return pulumi.ResourceOptions(providers={"aws": provider})


def declare_registry(settings: AwsSettings, here: pulumi.ResourceOptions) -> Registry:
    """The stack's registry; `atlas promote` declares it alone, to copy an image before the stack can run it."""
    stack = pulumi.get_stack()
    repository = image_repository(stack, settings.app_name)
    args = RegistryArgs(repository, settings.disposable, settings.images_kept, own_tags(stack))
    return Registry(stack_prefix(stack), args, here)


def _promoted() -> pulumi.Output[str]:
    """The image that the stack already runs, from its own outputs, which a failed `up` doesn't change."""
    stack = pulumi.get_stack()
    own = pulumi.StackReference("promoted", stack_name=f"{ORGANIZATION}/{PROJECT}/{stack}")

    def there(image: str | None) -> str:
        if not image:
            raise SettingsError(f"nothing was promoted to {stack} yet: `atlas promote dev {stack}` deploys an image")
        return image

    return own.get_output("image").apply(there)


def _service_settings(settings: AwsSettings, prometheus: str) -> dict[str, str]:
    """The service's environment, where it differs from its defaults (service/settings.py)."""
    given = {
        "LOG_LEVEL": settings.log_level,
        "WORKERS": str(settings.workers),
        "XDG_CACHE_HOME": "/tmp/cache",  # noqa: S108 - the only writable folder
    }
    if settings.api_keys_file is not None:
        given["API_KEYS_FILE"] = f"{KEYS_FOLDER}/{FILE_NAME}"
        # Prometheus asks the pods themselves, from its fixed address; callers come through the load balancer.
        given["METRICS_NETWORKS"] = f"{prometheus}/32"
    if settings.model_uri is not None:
        given["MODEL_URI"] = settings.model_uri
    if settings.mlflow_tracking_uri is not None:
        given["MLFLOW_TRACKING_URI"] = settings.mlflow_tracking_uri
    return given
