#!/bin/sh
#
# Becomes `brunix run`, which starts the engine and the gateway side by side: see `./entrypoint.sh --help`. This script
# only finds its Python. The environment that is active comes first, then that of the checkout.

set -u
# Process 1 ignores a signal without a trap.
trap 'exit 0' HUP INT QUIT TERM

case $0 in
    */*) here=${0%/*} ;;
    *) here=. ;;
esac
here=$(CDPATH='' cd -- "$here" && pwd)
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$here/.venv/bin/python" ]; then
    PATH=$here/.venv/bin:$PATH
    export PATH
fi

missing='python is not on the PATH'
for python in python python3; do
    command -v "$python" >/dev/null || continue
    "$python" -c 'import brunix_twisted' 2>/dev/null && exec "$python" -m brunix_twisted run "$@"
    missing="brunix_twisted is not installed for $python"
done
printf 'entrypoint.sh: %s; in a checkout, make run installs everything\n' "$missing" >&2
exit 127
