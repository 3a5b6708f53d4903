"""Request records and where they go: the log, metrics and traces."""
