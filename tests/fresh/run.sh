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
    echo "error: chroot needs root; run this script as root" >&2
    exit 1
fi
"$repository/tools/require" debootstrap=debootstrap git=git
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' | sed -n 's/ Debian Debian$//p' | head -n 1)
[ -n "$mirror" ] || { echo "error: this machine's apt knows no Debian mirror; run apt-get update first" >&2; exit 1; }

root=$(mktemp -d "${TMPDIR:-/tmp}/zseal-fresh.XXXXXX")
chmod 755 "$root" # apt fetches as a user of its own
cleanup() {
    for mount in dev/shm dev proc sys; do umount -l "$root/$mount" 2>/dev/null || true; done
    rm -rf --one-file-system "$root"
}
trap cleanup EXIT
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
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" # libvirt 11 starts no domain without it
mount --rbind /dev "$root/dev" 2>/dev/null || mount --bind /dev "$root/dev"
git clone -q "$repository" "$root/home/zseal"

inside() {
    env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb CI="${CI:-}" \
        ${PIP_CERT:+PIP_CERT="$PIP_CERT"} ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} \
        ${https_proxy:+https_proxy="$https_proxy"} ${http_proxy:+http_proxy="$http_proxy"} \
        chroot "$root" /bin/sh -c "cd /home/zseal && $1"
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
