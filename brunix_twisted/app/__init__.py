"""The gateway's service: start, drain and stop, --check, systemd; `brunix run` and `brunix health`."""
