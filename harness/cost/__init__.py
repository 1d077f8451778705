"""The cost of networks and methods: parameters, operations, latency, training time and memory."""
