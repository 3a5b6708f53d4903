"""Several gateway processes that share one listening socket, and their supervisor."""
