"""Settings and the parsers of their values: addresses, hosts, origins, certificates."""
