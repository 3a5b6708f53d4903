#!/bin/sh
# A small system of its own, with the real systemd as its process 1: own file system, own processes, own control groups.
# Nothing of the machine's can be written in there but what is under the root, which is in memory and goes with it.
# The network is the machine's, so that a test can reach the port.
#
# Started by unshare(1) in new namespaces and in a control group of its own; the arguments are an empty folder for the
# root, the project's folder, the folder of its Python, the folder of its packages, and the folder with the units. Once
# it is up, systemd says so at NOTIFY_SOCKET.
set -eu
root=$1 project=$2 python=$3 packages=$4 units=$5

mount -t tmpfs -o mode=755,size=256m brunix "$root"
cd "$root"
mkdir -p dev etc/systemd/system etc/brunix opt/brunix/.venv/bin opt/project opt/python opt/packages proc root run sys \
    tmp usr var/lib var/log var/tmp old
chmod 1777 tmp var/tmp
read_only() { mount --bind "$1" "$2"; mount -o remount,bind,ro "$2"; }
read_only /usr usr
for name in bin sbin lib lib32 lib64 libx32; do
    [ ! -L "/$name" ] || ln -s "usr/$name" "$name"
done
read_only "$project" opt/project
read_only "$python" opt/python
read_only "$packages" opt/packages
for name in null zero full random urandom tty; do
    : >"dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/shm dev/pts
for name in passwd group nsswitch.conf ld.so.cache hosts; do
    cp "/etc/$name" etc/
done
echo 0123456789abcdef0123456789abcdef >etc/machine-id
: >etc/os-release

# Its units, and of the distribution's the empty ones that they lean on: nothing else is ever started.
for name in basic local-fs multi-user network network-online paths shutdown sockets slices swap sysinit timers umount; do
    cp "/usr/lib/systemd/system/$name.target" etc/systemd/system/
done
cp -r "$units"/* etc/systemd/system/
mv etc/systemd/system/gateway.env etc/brunix/
cat >opt/brunix/.venv/bin/twistd <<'END'
#!/bin/sh
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}/opt/project:/opt/packages" LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/python3 -P -c 'from twisted.scripts.twistd import run; run()' "$@"
END
chmod 755 opt/brunix/.venv/bin/twistd

mount -t proc proc proc
for name in sys sysrq-trigger; do
    [ ! -e "proc/$name" ] || read_only "proc/$name" "proc/$name"
done
read_only /sys sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# The machine's own root has none. Whoever started this has to have given it a group of its own.
[ -e sys/fs/cgroup/cgroup.type ]
mount -t tmpfs -o mode=755 tmpfs run

pivot_root . old
umount -l old
# As systemd has it on a machine; with nobody outside, for all of these mounts were private.
mount --make-rshared /
exec env -i container=brunix NOTIFY_SOCKET="$NOTIFY_SOCKET" PATH=/usr/sbin:/usr/bin SYSTEMD_UNIT_PATH=/etc/systemd/system \
    SYSTEMD_GENERATOR_PATH=/nothing SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nothing \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no
