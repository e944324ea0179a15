# Becomes the first process of a throwaway machine: this system's files, copied on write, with a network of
# its own and systemd. tests/machine.py runs it in new namespaces; nothing that is done in there stays.
#
# usage: sh tests/machine.sh DIRECTORY     DIRECTORY/root is laid over the machine's root
set -eu
work=$1
mount --make-rprivate /

# A group of its own, or two machines would share the groups of units of the same name.
mkdir -p "$work/cgroup" "$work/layers"
mount -t cgroup2 cgroup2 "$work/cgroup"
own=$work/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/$(basename "$work")
mkdir -p "$own"
echo 0 >"$own/cgroup.procs"

mount -t tmpfs -o mode=755 tmpfs "$work/layers"
cd "$work/layers"
mkdir -m 755 upper work machine
mount -t overlay -o "lowerdir=/,upperdir=$work/layers/upper,workdir=$work/layers/work" overlay machine
cp -a "$work/root/." machine/
cd machine

mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
: >dev/console
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
: >etc/fstab
# The least that units need; what a package would start is started where the docs install it.
mkdir -p run/systemd/system
cat >run/systemd/system/machine.target <<'UNIT'
[Unit]
Requires=sysinit.target dbus.service
After=sysinit.target dbus.service
AllowIsolate=yes
UNIT

ip link set lo up
# Alertmanager wants an address that is not loopback.
ip address add 10.255.255.1/32 dev lo

exec unshare --cgroup sh -c '
    set -eu
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mkdir -p oldroot
    pivot_root . oldroot
    umount -l oldroot
    mount --make-rshared /
    exec setpriv --bounding-set -sys_boot,-sys_module,-sys_rawio,-sys_time,-syslog \
        env -i container=test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --log-target=journal --unit=machine.target'
