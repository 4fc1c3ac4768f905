"""The measuring suite: guests, topologies, workloads, report."""
