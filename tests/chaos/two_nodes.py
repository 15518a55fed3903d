"""A Ray cluster of a head without CPUs and two nodes of one CPU each; it obeys the lines of its standard input.

`stop` stops the second node as a power cut would; the end of the input ends the cluster.
"""

import os
import socket
import sys

MEMORY = {"object_store_memory": 100 * 2**20}


def main() -> None:
    """Print the address, then wait for what to do."""
    # As a driver has it.
    os.environ["RAY_AUTH_MODE"] = "token"
    from ray.cluster_utils import Cluster

    with socket.socket() as probe:
        # The usual one may be another Ray's.
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": port, **MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    _, second = (cluster.add_node(num_cpus=1, **MEMORY) for _ in range(2))
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "stop":
            cluster.remove_node(second, allow_graceful=False)
            print("stopped", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
