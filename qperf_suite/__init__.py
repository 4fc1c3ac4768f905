"""Measures virtual switches with qperf, mtr and iperf3 in real guests."""
