#!/usr/bin/env bash
# Proves that the README's two commands work from nothing: builds a clean Debian root with debootstrap, clones this
# repository's HEAD into it, and runs `make demo` and `make test` there, each twice (the second run must fetch and
# build nothing). Needs root. Takes about 10 minutes and 3 GB.
#
# Usage: tests/fresh/run.sh [SUITE [TARGET...]]     default: bookworm demo test
set -euo pipefail

suite=${1:-bookworm}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(demo test)

repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
if [ "$(id -u)" != 0 ]; then
    echo "error: debootstrap and namespaces need root rights; run this script as root" >&2
    exit 1
fi
"$repository/tools/require" debootstrap=debootstrap git=git
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' | sed -n 's/ Debian Debian$//p' | head -n 1)
[ -n "$mirror" ] || { echo "error: this machine's apt knows no Debian mirror; run apt-get update first" >&2; exit 1; }

root=$(mktemp -d "${TMPDIR:-/tmp}/zseal-fresh.XXXXXX")
chmod 755 "$root" # apt fetches as a user of its own
trap 'rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT TERM

echo "== Debian $suite in $root"
debootstrap --variant=minbase --include=ca-certificates,git,make "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -n 5 "$root.log" >&2; rm -f "$root.log"; exit 1; }
rm -f "$root.log"

# How this machine reaches the archives (resolver, proxies, certificates) is its own business: it is carried over.
# minbase leaves no universal security or updates archive, which a fresh Debian has; they are not needed.
cp /etc/resolv.conf "$root/etc/resolv.conf"
for file in /etc/ssl/certs/ca-certificates.crt /etc/pip.conf; do
    [ ! -e "$file" ] || install -D -m 644 "$file" "$root$file"
done
for file in /etc/apt/apt.conf /etc/apt/apt.conf.d/*; do
    [ ! -f "$file" ] || install -D -m 644 "$file" "$root$file"
done
git clone -q "$repository" "$root/home/zseal"

# The root becomes that of a mount namespace: in a mere chroot no program can make namespaces, as libvirt does. Mounts
# and processes that are left end with it.
# shellcheck disable=SC2016  # the inner shell expands this
enter='
set -e
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys # libvirt 11 starts no domain without it
mount --rbind /dev dev
mkdir -p .outside
pivot_root . .outside
cd /home/zseal
umount -l /.outside
exec /bin/sh -c "$command"
'
inside() {
    env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb CI="${CI:-}" \
        ${PIP_CERT:+PIP_CERT="$PIP_CERT"} ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} \
        ${https_proxy:+https_proxy="$https_proxy"} ${http_proxy:+http_proxy="$http_proxy"} \
        root="$root" command="$1" unshare --mount --pid --fork --kill-child /bin/sh -c "$enter"
}

for target in "${targets[@]}"; do
    for round in first second; do
        start=$(date +%s)
        echo "== make $target, $round run"
        inside "make $target"
        echo "== make $target, $round run: ok after $(($(date +%s) - start)) s"
    done
done
left=$(inside 'git status --porcelain')
if [ -n "$left" ]; then
    printf 'error: the runs left files that git does not ignore:\n%s\n' "$left" >&2
    exit 1
fi
echo "== fresh Debian $suite: all good"
