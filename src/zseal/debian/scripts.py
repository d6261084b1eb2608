"""Scripts that run inside guests to make a Debian root disk, and to boot from one."""

SETUP = "zseal-setup"
"""Directory on the disk with what is needed only once."""
DONE = "zseal: configured"

CONFIGURE_INIT = f"""#!/bin/busybox sh
# /init of the guest that completes the installation on /dev/vda1
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do $b insmod "$module"; done
fail() {{ echo "zseal: $*"; $b sync; $b poweroff -f; $b sleep 60; }}
$b mkdir -p /target
$b mount -t ext4 -o noatime,nobarrier,data=writeback /dev/vda1 /target || fail "cannot mount the disk"
cd /target
# whoever unpacked the packages may not have been root
$b find . -xdev '(' ! -user 0 -o ! -group 0 ')' -exec $b chown -h 0:0 '{{}}' + || fail "cannot set owners"
chown() {{ $b chown "$@"; }}
chmod() {{ $b chmod "$@"; }}
. ./{SETUP}/owners
for place in proc sys dev; do $b mkdir -p $place; $b mount --bind /$place $place; done
$b mount -t tmpfs tmpfs run
$b mount -t tmpfs tmpfs tmp
$b chroot . /bin/sh /{SETUP}/configure || fail "the packages' scripts failed"
for place in proc sys dev run tmp; do $b umount $place; done
$b rm -rf {SETUP}
cd /
$b umount /target || fail "cannot unmount the disk"
echo "{DONE}"
$b poweroff -f
"""

CONFIGURE = f"""# in the new system: what the second stage of debootstrap does
set -e
setup=/{SETUP}
mkdir -p $setup/bin
# Started in an emulated guest, and dozens of times, these cost minutes, and nothing of it is missed: the base system's
# services are enabled by links that are there, a mainframe's guest has no USB and PCI devices to look up. Packages that
# were asked for get the real ones.
unneeded="deb-systemd-invoke systemd-hwdb nscd sync"
[ -e $setup/services ] || unneeded="$unneeded deb-systemd-helper update-rc.d systemctl"
for name in $unneeded; do
    printf '#!/bin/sh\\nexit 0\\n' > $setup/bin/$name
    chmod 755 $setup/bin/$name
done
export PATH=$setup/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
chmod 755 /usr/sbin/policy-rc.d
[ -e /usr/bin/awk ] || ln -s mawk /usr/bin/awk
for package in base-passwd base-files; do
    script=/var/lib/dpkg/info/$package.preinst
    [ ! -e $script ] || DPKG_MAINTSCRIPT_PACKAGE=$package DPKG_MAINTSCRIPT_NAME=preinst sh $script install
done
dpkg --force-unsafe-io --configure -a
rm -r $setup/bin /usr/sbin/policy-rc.d
hash -r
depmod $(ls /usr/lib/modules)
passwd -d root
: > /etc/machine-id
touch /etc/.updated /var/.updated
"""

_UNITS = "/usr/lib/systemd/system"
_ENABLED = (
    "getty.target.wants/console-getty.service",
    "multi-user.target.wants/systemd-networkd.service",
    "sockets.target.wants/systemd-networkd.socket",
    "timers.target.wants/fstrim.timer",
    "timers.target.wants/dpkg-db-backup.timer",
)
_MASKED_UNITS = (
    "getty-static.service",  # prompts on virtual terminals, which the machine does not have
    "serial-getty@ttysclp0.service",  # waits for udev to recognise the terminal, and gives up; console-getty does not
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-hwdb-update.service",
    "systemd-networkd-persistent-storage.service",
)
_MASKED_GENERATORS = (
    "systemd-bless-boot-generator",
    "systemd-debug-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-tpm2-generator",
)
LINKS = {
    **{f"etc/systemd/system/{name}": f"{_UNITS}/{name.rpartition('/')[2]}" for name in _ENABLED},
    **{f"etc/systemd/system/{name}": "/dev/null" for name in _MASKED_UNITS},
    **{f"etc/systemd/system-generators/{name}": "/dev/null" for name in _MASKED_GENERATORS},
}
"""Links that enable the base system's services, as systemctl enable makes them, and that mask services that only cost
time.

An emulated CPU starts a program in a tenth of a second, so unneeded services would double a guest's boot time.
"""

ROOT_INIT = """#!/bin/busybox sh
# /init of a sealed image whose root lies on a disk: root=, rootflags=, rootfstype=, init= and ro as in Linux
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do $b insmod "$module"; done 2>/dev/null
root= flags= type=ext4 init=/sbin/init access=rw
for word in $($b cat /proc/cmdline); do
    case "$word" in
        root=*) root=${word#root=} ;;
        rootflags=*) flags=,${word#rootflags=} ;;
        rootfstype=*) type=${word#rootfstype=} ;;
        init=*) init=${word#init=} ;;
        ro | rw) access=$word ;;
    esac
done
stop() {
    echo "zseal: $*"
    $b sleep 5
    $b poweroff -f
}
[ -n "$root" ] || stop "the kernel parameters name no root= to mount"
$b mkdir -p /target
case "$root" in
    LABEL=* | UUID=*) source=$($b findfs "$root") || source= ;;
    *) source=$root ;;
esac
tries=100
while [ ! -b "$source" ] && [ $tries -gt 0 ]; do
    $b usleep 100000
    tries=$((tries - 1))
    case "$root" in LABEL=* | UUID=*) source=$($b findfs "$root") || source= ;; esac
done
[ -b "$source" ] || stop "there is no disk $root"
$b mount -t "$type" -o "$access$flags" "$source" /target || stop "cannot mount $root"
for place in proc sys dev; do $b mount --move /$place /target/$place; done
exec $b switch_root /target "$init"
"""
