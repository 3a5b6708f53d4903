"""The gateway as a service: start, drain and stop, checks, systemd; and `brunix run` and `brunix health`."""
