"""The `eks` provider's components: they register the AWS resources that pulumi-eks 4.4 registers, recorded by `aws`.

Names, inputs, parents, dependencies and ignored changes as in a record of the real component under the real engine; and
as in its source (nodejs/eks: cluster/cluster.ts, cluster/authenticationMode.ts, servicerole.ts, nodes/nodegroup.ts,
addons/*.ts) for what that record lacks. Inputs that would register more than is known here are refused.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, resource_pb2, resource_pb2_grpc

from tests.infra.recording import schema, sdk_internals
from tests.infra.recording.answers import REGION
from tests.infra.recording.provider import has_unknown, plain, serve, wire
from tests.infra.recording.rules import UNKNOWN

AWS, KUBERNETES = "7.48.0", "4.34.2"
"""Versions of the packages that the component was built with."""
SIGNATURE = "4dabf18193072939515e22adb298388d"
RESOURCE, SECRET = "5cf8f73096256a8f31e491e813e4eb8e", "1b47061264138c4ac30d75fd1eb44270"
"""How the engine marks a resource, and a secret, among properties."""

CLUSTER_INPUTS = frozenset({
    "accessEntries", "authenticationMode", "bootstrapSelfManagedAddons", "clusterTags", "createOidcProvider",
    "deletionProtection", "enabledClusterLogTypes", "encryptionConfigKeyArn", "endpointPrivateAccess",
    "endpointPublicAccess", "kubeProxyAddonOptions", "name", "privateSubnetIds", "publicAccessCidrs", "publicSubnetIds",
    "skipDefaultNodeGroup", "skipDefaultSecurityGroups", "subnetIds", "tags", "upgradePolicy", "version",
    "vpcCniOptions", "vpcId",
})  # fmt: skip
NODE_INPUTS = frozenset({
    "amiType", "capacityType", "cluster", "clusterName", "diskSize", "forceUpdateVersion", "ignoreScalingChanges",
    "instanceTypes", "labels", "launchTemplate", "nodeGroupName", "nodeRoleArn", "releaseVersion", "scalingConfig",
    "subnetIds", "tags", "taints", "updateConfig", "version",
})  # fmt: skip
CNI_ENVIRONMENT = {
    "AWS_VPC_ENI_MTU": "9001",
    "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "false",
    "AWS_VPC_K8S_CNI_EXTERNALSNAT": "false",
    "AWS_VPC_K8S_CNI_LOGLEVEL": "DEBUG",
    "AWS_VPC_K8S_CNI_LOG_FILE": "/host/var/log/aws-routed-eni/ipamd.log",
    "AWS_VPC_K8S_CNI_VETHPREFIX": "eni",
    "AWS_VPC_K8S_PLUGIN_LOG_FILE": "/var/log/aws-routed-eni/plugin.log",
    "AWS_VPC_K8S_PLUGIN_LOG_LEVEL": "DEBUG",
    "ENABLE_POD_ENI": "false",
    "WARM_ENI_TARGET": "1",
}


class Misused(Exception):  # noqa: N818 - reads as a sentence
    """Inputs that the component refuses."""


@dataclass(frozen=True, slots=True)
class Value:
    """An input and the resources that it comes from."""

    value: Any
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A registered resource."""

    urn: str
    id: str
    outputs: dict[str, Any]

    def out(self, name: str) -> Value:
        return Value(self.outputs.get(name, UNKNOWN), (self.urn,))

    @property
    def reference(self) -> dict[str, str]:
        """It, as an input or output of another."""
        return {SIGNATURE: RESOURCE, "urn": self.urn, "id": self.id, "packageVersion": ""}


class Registration:
    """The engine's resource monitor, as one Construct sees it."""

    def __init__(self, request: Any) -> None:
        self.request = request
        # A connection of its own: an earlier engine at the same port left a broken one (see sdk_internals).
        channel = grpc.insecure_channel(request.monitorEndpoint, options=[sdk_internals.OWN_CONNECTION])
        self.stub = resource_pb2_grpc.ResourceMonitorStub(channel)
        inputs = plain(request.inputs)
        sources = {key: tuple(sorted(found.urns)) for key, found in request.inputDependencies.items()}
        self.inputs = {key: Value(_opened(value), sources.get(key, ())) for key, value in inputs.items()}

    def get(self, name: str, default: Any = None) -> Any:
        """The plain value of an input."""
        found = self.inputs.get(name)
        return default if found is None or found.value is None else found.value

    def root(self) -> str:
        """Register the component itself, with the options that the program gave it; its URN."""
        request = self.request
        answer = self.stub.RegisterResource(
            resource_pb2.RegisterResourceRequest(
                type=request.type, name=request.name, parent=request.parent, custom=False, object=wire({}),
                dependencies=request.dependencies, providers=request.providers, aliases=request.aliases,
                protect=request.protect if request.HasField("protect") else None, deletedWith=request.deletedWith,
                aliasSpecs=True, acceptSecrets=True, acceptResources=True, supportsResultReporting=True,
            )
        )  # fmt: skip
        return str(answer.urn)

    def component(self, kind: str, name: str, parent: str, dependencies: Iterable[str] = ()) -> str:
        answer = self.stub.RegisterResource(
            resource_pb2.RegisterResourceRequest(
                type=kind, name=name, parent=parent, custom=False, object=wire({}), dependencies=list(dependencies),
                aliasSpecs=True, acceptSecrets=True, acceptResources=True, supportsResultReporting=True,
            )
        )  # fmt: skip
        return str(answer.urn)

    def custom(
        self,
        kind: str,
        name: str,
        parent: str,
        inputs: Mapping[str, Value | None],
        *,
        dependencies: Iterable[str] = (),
        ignored: Iterable[str] = (),
    ) -> Made:
        """Register a resource of `aws`, or the Kubernetes provider."""
        given = {key: found for key, found in inputs.items() if found is not None and found.value is not None}
        sources = {key: found.sources for key, found in given.items() if found.sources}
        found_in = resource_pb2.RegisterResourceRequest.PropertyDependencies
        provider = kind.startswith("pulumi:providers:")
        answer = self.stub.RegisterResource(
            resource_pb2.RegisterResourceRequest(
                type=kind, name=name, parent=parent, custom=True,
                object=wire({key: found.value for key, found in given.items()}),
                dependencies=sorted({*dependencies, *(urn for urns in sources.values() for urn in urns)}),
                propertyDependencies={key: found_in(urns=urns) for key, urns in sources.items()},
                provider="" if provider else self.request.providers.get("aws", ""),
                version=KUBERNETES if provider else AWS, ignoreChanges=list(ignored),
                protect=self.request.protect if self.request.HasField("protect") else None,
                aliasSpecs=True, acceptSecrets=True, acceptResources=True, supportsPartialValues=True,
                supportsResultReporting=True,
            )
        )  # fmt: skip
        outputs = {key: _opened(value) for key, value in plain(answer.object).items()}
        return Made(str(answer.urn), str(answer.id), outputs)

    def finish(self, urn: str, state: Mapping[str, Value]) -> Any:
        """Register the component's outputs; the answer to Construct."""
        properties = wire({key: found.value for key, found in state.items()})
        self.stub.RegisterResourceOutputs(resource_pb2.RegisterResourceOutputsRequest(urn=urn, outputs=properties))
        found_in = provider_pb2.ConstructResponse.PropertyDependencies
        return provider_pb2.ConstructResponse(
            urn=urn,
            state=properties,
            stateDependencies={key: found_in(urns=found.sources) for key, found in state.items()},
        )

    def invoke(self, token: str, arguments: dict[str, Any]) -> dict[str, Any]:
        answer = self.stub.Invoke(
            resource_pb2.ResourceInvokeRequest(
                tok=token, args=wire(arguments), provider=self.request.providers.get("aws", ""), version=AWS
            )
        )
        return plain(getattr(answer, "return"))


class Components(provider_pb2_grpc.ResourceProviderServicer):
    """Constructs Cluster, ManagedNodeGroup and Addon."""

    def __init__(self) -> None:
        self.clusters: dict[str, Made] = {}
        """Of this run: component's URN -> its control plane."""

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_resources=True)

    def Attach(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=version("pulumi_eks"))

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True, acceptResources=True)

    def Construct(self, request: Any, context: Any) -> Any:
        build = {
            "eks:index:Cluster": self._cluster,
            "eks:index:ManagedNodeGroup": self._nodes,
            "eks:index:Addon": self._addon,
        }.get(request.type)
        if build is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{request.type}: no such component here")
            raise AssertionError
        at = Registration(request)
        problems = schema.problems(request.type, {key: _shape(found.value) for key, found in at.inputs.items()})
        if problems:
            lines = "; ".join(f"{request.type} {path}: {reason}" for path, reason in problems)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, lines)
        try:
            return build(at)
        except Misused as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{request.type}: {error}")
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())

    def _cluster(self, at: Registration) -> Any:
        name = at.request.name
        _refuse_unknown(at, CLUSTER_INPUTS)
        _check_cluster(at)
        root = at.root()
        at.invoke("aws:index/getPartition:getPartition", {})
        tags = at.inputs.get("tags")
        role, attachment = self._service_role(at, f"{name}-eksRole", root, tags)
        control_plane = at.custom(
            "aws:eks/cluster:Cluster", f"{name}-eksCluster", root, _control_plane(at, role),
            dependencies=[role.urn, attachment.urn],
            ignored=["accessConfig.bootstrapClusterCreatorAdminPermissions", "bootstrapSelfManagedAddons"],
        )  # fmt: skip
        self.clusters[root] = control_plane
        proxy = at.get("kubeProxyAddonOptions", {})
        if proxy.get("enabled", True):
            at.custom(
                "aws:eks/addon:Addon", f"{name}-kube-proxy", root,
                _addon_inputs(at, "kube-proxy", proxy, proxy.get("version"), control_plane, tags),
            )  # fmt: skip
        kubeconfig = _kubeconfig(control_plane)
        at.custom("pulumi:providers:kubernetes", f"{name}-eks-k8s", root, {"kubeconfig": kubeconfig})
        entries = list(_access(at, root, control_plane))
        cni = at.get("vpcCniOptions", {})
        parent = at.component("eks:index:VpcCniAddon", f"{name}-vpc-cni", root, entries)
        at.custom(
            "aws:eks/addon:Addon", f"{name}-vpc-cni", parent,
            _addon_inputs(
                at, "vpc-cni", {**cni, "configurationValues": _cni_configuration(cni)}, cni.get("addonVersion"),
                control_plane, tags,
            ),
        )  # fmt: skip
        network = control_plane.outputs.get("vpcConfig", UNKNOWN)
        group = network if network == UNKNOWN else network.get("clusterSecurityGroupId", UNKNOWN)
        return at.finish(
            root,
            {
                "kubeconfig": Value(_document(kubeconfig.value), kubeconfig.sources),
                "kubeconfigJson": kubeconfig,
                "eksCluster": Value(control_plane.reference, (control_plane.urn,)),
                "clusterSecurityGroupId": Value(group, (control_plane.urn,)),
                "nodeSecurityGroupId": Value(group, (control_plane.urn,)),
                "instanceRoles": Value([]),
                **{
                    key: Value("")
                    for key in ("clusterIngressRuleId", "defaultNodeGroupAsgName", "fargateProfileId",
                                "fargateProfileStatus", "oidcProviderArn", "autoModeNodeRoleName")
                },
            },
        )  # fmt: skip

    def _service_role(self, at: Registration, name: str, parent: str, tags: Value | None) -> tuple[Made, Made]:
        here = at.component("eks:index:ServiceRole", name, parent)
        statement = {
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Effect": "Allow",
            "Principal": {"Service": ["eks.amazonaws.com"]},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]}, separators=(",", ":"))
        role = at.custom(
            "aws:iam/role:Role", f"{name}-role", here,
            {
                "assumeRolePolicy": Value(policy),
                "description": Value("Allows EKS to manage clusters on your behalf."),
                "tags": tags,
            },
        )  # fmt: skip
        arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
        attachment = at.custom(
            "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
            f"{name}-{hashlib.sha1(arn.encode()).hexdigest()[:8]}",
            here,
            {"policyArn": Value(arn), "role": Value(role.reference, (role.urn,))},
        )
        return role, attachment

    def _control_plane_of(self, at: Registration) -> Made:
        reference = at.get("cluster")
        urn = reference.get("urn") if isinstance(reference, dict) else None
        if urn not in self.clusters:
            raise Misused(f"cluster must be an eks.Cluster of this program, got {reference!r}")
        return self.clusters[urn]

    def _nodes(self, at: Registration) -> Any:
        _refuse_unknown(at, NODE_INPUTS)
        if "nodeRoleArn" not in at.inputs:
            raise Misused("An IAM role, or role ARN must be provided to create a managed node group")
        control_plane = self._control_plane_of(at)
        root = at.root()
        scaling = {"desiredSize": 2, "minSize": 1, "maxSize": 2, **at.get("scalingConfig", {})}
        own = {key: found for key, found in at.inputs.items() if key not in ("cluster", "ignoreScalingChanges")}
        if "launchTemplate" not in own and "version" not in own:
            own["version"] = control_plane.out("version")
        group = at.custom(
            "aws:eks/nodeGroup:NodeGroup", at.request.name, root,
            {
                **own,
                "clusterName": own.get("clusterName") or control_plane.out("name"),
                "scalingConfig": Value(scaling, own["scalingConfig"].sources if "scalingConfig" in own else ()),
            },
            ignored=["scalingConfig.desiredSize"] if at.get("ignoreScalingChanges") else [],
        )  # fmt: skip
        return at.finish(root, {"nodeGroup": Value(group.reference, (group.urn,)), "placementGroupName": Value("")})

    def _addon(self, at: Registration) -> Any:
        control_plane = self._control_plane_of(at)
        root = at.root()
        own = {key: found for key, found in at.inputs.items() if key != "cluster"}
        values = own.pop("configurationValues", None)
        if values is not None:
            own["configurationValues"] = Value(_sorted_json(values.value), values.sources)
        at.custom("aws:eks/addon:Addon", at.request.name, root, {**own, "clusterName": control_plane.out("name")})
        return at.finish(root, {})


def _refuse_unknown(at: Registration, known: frozenset[str]) -> None:
    more = sorted(key for key, found in at.inputs.items() if found.value is not None and key not in known)
    if more:
        raise Misused(f"{', '.join(more)}: not known what the real component makes of it")


def _check_cluster(at: Registration) -> None:
    """What cluster.ts refuses, and what this doesn't know to do."""
    if at.get("subnetIds") is not None and (at.get("publicSubnetIds") or at.get("privateSubnetIds")):
        raise Misused("subnetIds, and the use of publicSubnetIds and/or privateSubnetIds are mutually exclusive")
    if at.get("publicAccessCidrs") is not None and not at.get("endpointPublicAccess", True):
        raise Misused("`publicAccessCidrs` can only be set when `endpointPublicAccess` is true")
    expected = {
        "authenticationMode": "API",
        "skipDefaultNodeGroup": True,
        "skipDefaultSecurityGroups": True,
        "createOidcProvider": False,
    }
    for key, value in expected.items():
        if at.get(key, False) != value:
            raise Misused(f"{key} must be {value!r}: other values register more than is known here")
    if at.get("vpcId") is None:
        raise Misused("without vpcId it would take the account's default VPC")


def _control_plane(at: Registration, role: Made) -> dict[str, Value | None]:
    subnets = [*(at.get("publicSubnetIds") or []), *(at.get("privateSubnetIds") or [])] or at.get("subnetIds")
    network = {
        "subnetIds": subnets,
        "endpointPrivateAccess": at.get("endpointPrivateAccess"),
        "endpointPublicAccess": at.get("endpointPublicAccess"),
        "publicAccessCidrs": at.get("publicAccessCidrs"),
    }
    key = at.inputs.get("encryptionConfigKeyArn")
    tags = {"Name": f"{at.request.name}-eksCluster", **at.get("clusterTags", {}), **at.get("tags", {})}
    keys = ("publicSubnetIds", "privateSubnetIds", "subnetIds", "publicAccessCidrs")
    return {
        "accessConfig": Value({"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": True}),
        "bootstrapSelfManagedAddons": Value(at.get("bootstrapSelfManagedAddons", True)),
        "deletionProtection": at.inputs.get("deletionProtection"),
        "enabledClusterLogTypes": at.inputs.get("enabledClusterLogTypes"),
        "encryptionConfig": Value({"provider": {"keyArn": key.value}, "resources": ["secrets"]}, key.sources)
        if key
        else None,
        "name": at.inputs.get("name"),
        "roleArn": role.out("arn"),
        "tags": Value(tags, at.inputs["tags"].sources if "tags" in at.inputs else ()),
        "upgradePolicy": at.inputs.get("upgradePolicy"),
        "version": at.inputs.get("version"),
        "vpcConfig": Value(
            {key: value for key, value in network.items() if value is not None},
            tuple(sorted({urn for key in keys if key in at.inputs for urn in at.inputs[key].sources})),
        ),
    }


def _access(at: Registration, parent: str, control_plane: Made) -> Iterator[str]:
    """Access entries and their policies; URNs of the entries."""
    entries = at.inputs.get("accessEntries") or Value({})
    cluster = control_plane.out("name")
    for label, entry in entries.value.items():
        made = at.custom(
            "aws:eks/accessEntry:AccessEntry", f"{at.request.name}-{label}", parent,
            {
                "clusterName": cluster,
                "principalArn": Value(entry["principalArn"], entries.sources),
                **{key: Value(entry.get(key)) for key in ("kubernetesGroups", "type", "tags")},
                "userName": Value(entry.get("username")),
            },
            dependencies=[control_plane.urn],
        )  # fmt: skip
        yield made.urn
        for policy, association in (entry.get("accessPolicies") or {}).items():
            at.custom(
                "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
                f"{at.request.name}-{label}-{policy}",
                made.urn,
                {
                    "accessScope": Value(association["accessScope"]),
                    "clusterName": cluster,
                    "policyArn": Value(association["policyArn"]),
                    "principalArn": Value(entry["principalArn"], entries.sources),
                },
                dependencies=[made.urn],
            )


def _addon_inputs(
    at: Registration, addon: str, options: Mapping[str, Any], chosen: Any, control_plane: Made, tags: Value | None
) -> dict[str, Value | None]:
    if chosen is None:
        arguments = {"addonName": addon, "kubernetesVersion": control_plane.outputs.get("version"), "mostRecent": True}
        chosen = at.invoke("aws:eks/getAddonVersion:getAddonVersion", arguments)["version"]
    values = options.get("configurationValues")
    return {
        "addonName": Value(addon),
        "addonVersion": Value(chosen),
        "clusterName": control_plane.out("name"),
        "configurationValues": Value(_sorted_json(values)) if values else None,
        "preserve": Value(True),
        "resolveConflictsOnCreate": Value(options.get("resolveConflictsOnCreate", "OVERWRITE")),
        "resolveConflictsOnUpdate": Value(options.get("resolveConflictsOnUpdate", "OVERWRITE")),
        "serviceAccountRoleArn": Value(options.get("serviceAccountRoleArn")),
        "tags": tags,
    }


def _cni_configuration(options: Mapping[str, Any]) -> dict[str, Any]:
    more = set(options) - {"addonVersion", "configurationValues", "enableNetworkPolicy", "resolveConflictsOnCreate",
                           "resolveConflictsOnUpdate", "serviceAccountRoleArn"}  # fmt: skip
    if more:
        raise Misused(f"vpcCniOptions.{sorted(more)[0]}: not known what the real component makes of it")
    given = dict(options.get("configurationValues") or {})
    if options.get("enableNetworkPolicy") is not None:
        given.setdefault("enableNetworkPolicy", "true" if options["enableNetworkPolicy"] else "false")
    given["env"] = {**CNI_ENVIRONMENT, **given.get("env", {})}
    initial = {"DISABLE_TCP_EARLY_DEMUX": "false"}
    given["init"] = {**given.get("init", {}), "env": {**initial, **given.get("init", {}).get("env", {})}}
    return given


def _kubeconfig(control_plane: Made) -> Value:
    """What `aws eks update-kubeconfig` would write: a token by `aws eks get-token`, no secret."""
    name, endpoint = control_plane.outputs.get("name", UNKNOWN), control_plane.outputs.get("endpoint", UNKNOWN)
    authority = control_plane.outputs.get("certificateAuthority", UNKNOWN)
    if has_unknown([name, endpoint, authority]):
        return Value(UNKNOWN, (control_plane.urn,))
    arguments = ["--region", REGION, "eks", "get-token", "--cluster-name", name, "--output", "json"]
    information = {"apiVersion": "client.authentication.k8s.io/v1beta1"}
    execution = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": arguments,
        "env": [{"name": "KUBERNETES_EXEC_INFO", "value": json.dumps(information)}],
    }
    cluster = {"server": endpoint, "certificate-authority-data": authority["data"]}
    document = {
        "apiVersion": "v1",
        "clusters": [{"cluster": cluster, "name": "kubernetes"}],
        "contexts": [{"context": {"cluster": "kubernetes", "user": "aws"}, "name": "aws"}],
        "current-context": "aws",
        "kind": "Config",
        "users": [{"name": "aws", "user": {"exec": execution}}],
    }
    return Value(json.dumps(document, separators=(",", ":")), (control_plane.urn,))


def _document(text: str) -> Any:
    return text if text == UNKNOWN else json.loads(text)


def _sorted_json(value: Any) -> Any:
    return UNKNOWN if has_unknown(value) else json.dumps(value, sort_keys=True, separators=(",", ":"))


def _opened(value: Any) -> Any:
    """A property without its secrets' wrapping; nothing that the component takes is secret."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return _opened(value.get("value"))
        return {key: _opened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_opened(item) for item in value]
    return value


def _shape(value: Any) -> Any:
    """The inputs with resources left out, of which the SDK knows no inner shape."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == RESOURCE:
            return UNKNOWN
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return value


if __name__ == "__main__":
    serve(Components())
