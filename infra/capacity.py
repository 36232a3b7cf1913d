"""Capacity: the pods and the disk of a node, and the quota of vCPUs that all instances of an account share."""

POD_LIMITS = {
    "t3.small": 11,
    "t3.medium": 17,
    "t3.large": 35,
    "t3.xlarge": 58,
    "m5.large": 29,
    "m6i.large": 29,
    "m7i.large": 29,
}
"""Pods that a node of the type can run with the VPC CNI (its misc/eni-max-pods.txt); other types aren't checked."""
NODE_DISK_GB = 20
"""The disk of every node, for images and logs."""
NODE_PODS = 3
"""Pods that the system runs on every node: aws-node, kube-proxy, eks-pod-identity-agent."""
CLUSTER_PODS = 4
"""Pods that the system runs once per cluster: two of coredns, two of metrics-server."""
HOSTS = 2
"""The monitoring hosts of a stack: Prometheus's and Grafana's."""
VCPU_QUOTA = "L-1216C47A"
"""AWS's quota "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", in vCPUs; new accounts may have 5."""
