#!/bin/sh
#
# Starts the engine and the gateway side by side, lets them meet on a free port, says when both answer, and lets neither outlive the other.
# Any POSIX shell runs it, as process 1 of a container too. Environment:
#
#   BRUNIX_ENGINE_COMMAND    the engine; default: python -m brunix_twisted.embedded
#   BRUNIX_GATEWAY_COMMAND   the gateway; default: twistd --nodaemon --pidfile= brunix, with --reactor=asyncio before
#                            brunix if PROXY_ENGINE_CLIENT=aio
#   BRUNIX_DRAIN_GRACE_S     seconds the gateway has for the answers it has begun, once asked to stop; default: 30
#   BRUNIX_KILL_GRACE_S      seconds from SIGTERM to SIGKILL in every other case; default: 5
#
# Exit status:
#
#   0    asked to stop by SIGTERM, SIGINT, SIGHUP or SIGQUIT, and both left cleanly
#   1    the engine or the gateway ended without that, whatever its own status was
#   2    asked to stop, but one left with an error or had to be killed
#   64   one of the variables above holds what it must not
#   127  a command is not found; nothing was started
#
# Asked to stop, the gateway gets SIGTERM first and the engine once the gateway has left. A second signal asks the
# engine at once and leaves both the short grace; a third kills. Signals go to whole process groups, so what a command
# starts ends with it, unless it moves to a group of its own. Should this script itself get SIGKILL, Linux kills the
# two commands with it, but not what they may have started.

# Before anything else: process 1 is deaf to a signal without a trap.
asked=0 by='' heard=0
for name in HUP INT QUIT TERM; do
    # shellcheck disable=SC2064 # $name is meant to be this one's
    trap "heard=\$((heard + 1)) asked=\$((asked + 1)) by=SIG$name" "$name"
done
# Whoever reads our messages may leave before we do.
trap '' PIPE
# These would end this script, and with it, at once, all that it has started.
trap 'heard=$((heard + 1))' USR1 USR2
set -u

say() {
    printf 'entrypoint.sh: %s\n' "$*" >&2
}

fail() { # STATUS WORDS...
    failure=$1
    shift
    say "$*"
    exit "$failure"
}

# --- What to run ------------------------------------------------------------------------------------------------------

# A checkout brings its own virtual environment; one that somebody activated on purpose comes first.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$here/.venv/bin/python" ]; then
    PATH=$here/.venv/bin:$PATH
    export PATH
fi

python=python
command -v "$python" >/dev/null || python=python3
command -v "$python" >/dev/null || fail 127 "python is not on the PATH; in a checkout, make run installs everything"

engine_command=${BRUNIX_ENGINE_COMMAND:-$python -m brunix_twisted.embedded}
case ${PROXY_ENGINE_CLIENT:-} in
    aio) reactor=asyncio ;;
    *) reactor=default ;;
esac
gateway_command=${BRUNIX_GATEWAY_COMMAND:-twistd --reactor=$reactor --nodaemon --pidfile= brunix}
# More than the gateway takes to drain (at most 25 s), and what a busy machine adds to that.
drain_grace=${BRUNIX_DRAIN_GRACE_S:-30}
# With a second to notice and one for SIGKILL to work, a failure is over within ten.
kill_grace=${BRUNIX_KILL_GRACE_S:-5}

whole_number() { # VARIABLE VALUE
    case $2 in
        *[!0-9]* | ?????*) fail 64 "$1 is '$2'; allowed: a whole number from 0 to 9999" ;;
    esac
}
whole_number BRUNIX_DRAIN_GRACE_S "$drain_grace"
whole_number BRUNIX_KILL_GRACE_S "$kill_grace"

must_exist() { # VARIABLE COMMAND
    word=${2%% *}
    case $word in
        '' | *[!A-Za-z0-9_./+-]*) ;; # shell syntax: the shell that runs it will judge
        *) command -v "$word" >/dev/null || fail 127 "$word is not found, which $1 would run" \
            "(in a checkout, make run installs the default commands)" ;;
    esac
}
must_exist BRUNIX_ENGINE_COMMAND "$engine_command"
must_exist BRUNIX_GATEWAY_COMMAND "$gateway_command"

# The engine of our own, and the gateway, have to agree on a port. If it cannot be found out, the engine will say why.
moved=''
if [ -z "${BRUNIX_ENGINE_COMMAND:-}" ] && met=$("$python" -m brunix_twisted.embedded.rendezvous 2>/dev/null); then
    [ "$met" = "${BRUNIX_ENGINE_LISTEN:-localhost:50051} ${BRUNIX_GRPC_TARGET:-localhost:50051}" ] ||
        moved=", where the engine listens on ${met%% *}"
    BRUNIX_ENGINE_LISTEN=${met%% *} BRUNIX_GRPC_TARGET=${met##* }
    export BRUNIX_ENGINE_LISTEN BRUNIX_GRPC_TARGET
fi

# Becomes the command, in a session and process group of its own. Python does it because every system that can run the
# gateway has it, whereas setsid and setpriv are missing from some. Arguments: the number of this shell, the command.
launcher='
import os, signal, sys

parent, command = int(sys.argv[1]), sys.argv[2]
if os.getpgrp() != os.getpid():
    os.setsid()
# A shell starts what runs in the background deaf to the first two; this script and Python are deaf to the third.
for number in signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ:
    signal.signal(number, signal.SIG_DFL)
try:
    import ctypes

    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
except (ImportError, AttributeError, OSError):
    pass  # not Linux
if os.getppid() != parent:
    sys.exit(1)  # it ended before the line above could take note
if not set("|&;<>()$`*?[]#~!{}\\\"\n" + chr(39)) & set(command):
    # Without a shell in between, which SIGKILL would end in the place of the command.
    words = command.split()
    try:
        os.execvp(words[0], words)
    except OSError:
        pass  # a word of the shell, perhaps
os.execvp("sh", ["sh", "-c", command])
'

# `sh -c ./entrypoint.sh` leaves a shell waiting around this one, unless that shell becomes its last command as bash
# does. Whoever ends it means this script, which would not hear of it. Only Linux tells.
around=''
case $(tr '\0' '\n' 2>/dev/null <"/proc/$PPID/cmdline") in
    *"
-c
$0" | *"
-c
"*"&& $0") around=$PPID ;;
esac

# --- The children -----------------------------------------------------------------------------------------------------

# Of each: the number of its process and group, empty once nothing of the group is left (the number may be a stranger's
# from then on), and its status, empty until it has ended.
engine='' engine_status=''
gateway='' gateway_status=''
probe='' probe_status=''

start() { # COMMAND
    "$python" -I -S -c "$launcher" "$$" "$1" &
}

bury() { # PID: sets $status to that of a child that has ended
    status=''
    while :; do
        before=$heard
        wait "$1" 2>/dev/null
        found=$?
        # A signal makes `wait` return too, with a number of its own. If it had the true one all the same, it has none
        # the next time.
        if [ -z "$status" ] || [ "$found" -ne 127 ]; then
            status=$found
        fi
        [ "$heard" -ne "$before" ] || break
    done
}

look() { # brings the six variables up to date
    for name in engine gateway probe; do
        eval "pid=\$$name status=\$${name}_status"
        [ -n "$pid" ] || continue
        if [ -z "$status" ] && ! kill -0 "$pid" 2>/dev/null; then
            bury "$pid"
        fi
        if [ -n "$status" ] && ! kill -0 "-$pid" 2>/dev/null; then
            pid=''
        fi
        eval "$name=\$pid ${name}_status=\$status"
    done
}

forsaken() { # the shell around this one is gone
    [ -n "$around" ] || return
    value=''
    while read -r key value; do
        [ "$key" != PPid: ] || break
    done <"/proc/$$/status"
    [ -n "$value" ] && [ "$value" != "$around" ]
}

signal() { # SIGNAL PID...
    number=$1
    shift
    for pid in "$@"; do
        [ -z "$pid" ] || kill "-$number" "-$pid" 2>/dev/null || kill "-$number" "$pid" 2>/dev/null
    done
}

starting() { # PID: the launcher has not made the group yet
    [ -n "$1" ] && kill -0 "$1" 2>/dev/null && ! kill -0 "-$1" 2>/dev/null
}

how() { # STATUS
    name=''
    [ "$1" -le 128 ] || name=$(kill -l "$(($1 - 128))" 2>/dev/null)
    case $name in
        [A-Z]*) echo "was ended by SIG$name" ;;
        *) echo "ended with status $1" ;;
    esac
}

ticks=0 nap='' quarters=0
if [ -z "${BASH_VERSION:-}" ]; then
    # A trap makes `wait` return when any child ends, so that nobody waits for the second to be over. Were it missed,
    # the second would still end.
    trap 'heard=$((heard + 1))' CHLD
    pause() { # until a child ends, a signal arrives or the current second is over
        if [ -z "$nap" ]; then
            sleep 1 >/dev/null 2>&1 &
            nap=$!
        fi
        wait "$nap" 2>/dev/null
        if ! kill -0 "$nap" 2>/dev/null; then
            nap='' ticks=$((ticks + 1))
        fi
    }
else
    # bash forgets a child that ends in the moment in which a signal interrupts `wait`, and a later `wait` for that child
    # never returns. So here nothing that a signal may interrupt is waited for, and signals wait for a short sleep.
    pause() {
        sleep 0.25 2>/dev/null || sleep 1
        quarters=$((quarters + 1))
        ticks=$((quarters / 4))
    }
fi

patience() { # SECONDS SIGNALS: how long to wait now, and how many signals, all told, before waiting no longer
    since=$ticks grace=$1 signals=$2
}

patient() {
    look
    [ $((ticks - since)) -le "$grace" ] && [ "$asked" -le "$signals" ]
}

# --- From here on it happens ------------------------------------------------------------------------------------------

say "starting the engine ($engine_command) and the gateway ($gateway_command)$moved"
start "$engine_command"
engine=$!
start "$gateway_command"
gateway=$!
# Says when both answer, and until then what is missing.
start "$python -m brunix_twisted.probe"
probe=$!

probed=''
while look && [ "$asked" -eq 0 ] && [ -z "$engine_status$gateway_status" ]; do
    if [ -n "$probe_status" ] && [ -z "$probed" ]; then
        probed=1
        [ "$probe_status" -eq 0 ] ||
            say "the probe $(how "$probe_status"), so nobody will say when the gateway is up; both are left running"
    fi
    if forsaken; then
        asked=1 by="the shell around this script is gone"
    fi
    pause
done

# A signal to a process that is still becoming the launcher could get lost.
patience 1 2
while patient && { starting "$engine" || starting "$gateway" || starting "$probe"; }; do
    pause
done

signal TERM "$probe"
if [ "$asked" -gt 0 ]; then
    result=0
    # First, since what is said may have to wait for whoever reads it.
    signal TERM "$gateway"
    say "$by: asking the gateway to stop, then the engine"
    patience "$drain_grace" 1
    # Without the engine there is nothing left that the gateway could finish.
    while patient && [ -n "$gateway" ] && [ -z "$engine_status" ]; do
        pause
    done
    signal TERM "$engine"
else
    result=1
    signal TERM "$gateway" "$engine"
    [ -z "$engine_status" ] || say "the engine $(how "$engine_status"), unasked: stopping everything"
    [ -z "$gateway_status" ] || say "the gateway $(how "$gateway_status"), unasked: stopping everything"
fi

patience "$kill_grace" 2
while patient && [ -n "$engine$gateway$probe" ]; do
    pause
done

# What has to be killed is told once; what left on its own is told only if that was an error. SIGTERM's own 143 is none:
# a program that cleans up and then ends by the signal it got, as twistd does, has left the way it should.
left() { # NAME PID STATUS
    if [ -n "$2" ]; then
        say "the $1, or something it started, did not end when asked: killing it"
        [ "$result" -ne 0 ] || result=2
    elif [ "$result" -ne 1 ]; then
        case $3 in
            0 | 143) ;;
            *)
                say "the $1 $(how "$3") when asked to stop"
                result=2
                ;;
        esac
    fi
}
left gateway "$gateway" "$gateway_status"
left engine "$engine" "$engine_status"

signal KILL "$gateway" "$engine" "$probe"
patience 1 9999
while patient && [ -n "$engine$gateway$probe" ]; do
    pause
done
[ -z "$engine$gateway$probe" ] || say "after SIGKILL, still there or not reaped: process group(s) $engine $gateway $probe"

if [ -n "$nap" ]; then
    kill "$nap" 2>/dev/null
    wait "$nap" 2>/dev/null
fi
[ "$result" -ne 0 ] || say "stopped"
exit "$result"
