"""The kubelet metrics that rules and dashboards use; test_cluster.py checks each of them on a real kubelet."""

DISKS = frozenset({"container_fs_usage_bytes", "container_fs_limit_bytes"})
"""Missing on a kubelet with `localStorageCapacityIsolation: false`."""
SERIES = DISKS | {
    "kubelet_running_pods",
    # /metrics/resource
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "container_start_time_seconds",
    "node_cpu_usage_seconds_total",
    "node_memory_working_set_bytes",
    # /metrics/cadvisor
    "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_spec_memory_limit_bytes",
    "machine_cpu_cores",
    "machine_memory_bytes",
}
