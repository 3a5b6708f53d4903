"""Several gateway processes on one machine that share one listening socket, and the supervisor that keeps them."""
