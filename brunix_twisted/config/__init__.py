"""Settings, and what their values mean: addresses, host names, origins, certificates."""
