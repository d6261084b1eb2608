"""Unpack Debian packages for another architecture into an empty directory, with dpkg's own database.

No code of the packages is executed, and no privilege is needed: their content is unpacked as by ``dpkg --unpack``, so
that ``dpkg --configure -a`` in the system itself completes the installation. Owners other than root and special modes
are returned, for a later step that may set them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from zseal.errors import FormatError, InputError, MissingDependencyError

_SPECIAL = 0o6000  # setuid, setgid
_FIRST = "base-files"  # contains the links /bin, /lib and /sbin that all others expect
_WORKERS = 2


@dataclasses.dataclass(frozen=True)
class Owner:
    """``path`` (absolute, in the new system) belongs to ``user`` and ``group`` and has ``mode``."""

    path: str
    user: int
    group: int
    mode: int


@dataclasses.dataclass(frozen=True)
class _Package:
    fields: str
    name: str
    architecture: str
    same: bool
    files: bytes
    control: bytes

    @property
    def info_name(self) -> str:
        """The prefix of its files in /var/lib/dpkg/info."""
        return f"{self.name}:{self.architecture}" if self.same else self.name


def unpack(debs: Iterable[Path], root: Path, *, progress: Callable[[float], None] = lambda _share: None) -> list[Owner]:
    """Unpack ``debs`` into the empty directory ``root``; returns the files that do not belong to root or are special.

    Raises FormatError for a package that is damaged or has paths outside ``root``.
    """
    ordered = sorted(debs, key=lambda deb: (not deb.name.startswith(f"{_FIRST}_"), deb.name))
    database = _Database(root)
    owners: list[Owner] = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        # a separate program decompresses a package, so two are read while one is unpacked
        for done, package in enumerate(_ahead(pool, ordered), start=1):
            members = list(_members(package))
            _extract(package, root)
            owners += [Owner(_absolute(item), item.uid, item.gid, item.mode) for item in members if _is_special(item)]
            database.add(package, ["/.", *(path for item in members if (path := _absolute(item)) != "/")])
            progress(done / len(ordered))
    database.write()
    return owners


def _ahead(pool: ThreadPoolExecutor, debs: Sequence[Path]) -> Iterator[_Package]:
    """Read ``debs`` in their order, a few of them ahead."""
    waiting = [pool.submit(_read, deb) for deb in debs[:_WORKERS]]
    for deb in [*debs[_WORKERS:], *[None] * min(_WORKERS, len(debs))]:
        package = waiting.pop(0).result()
        if deb is not None:
            waiting.append(pool.submit(_read, deb))
        yield package


def _read(deb: Path) -> _Package:
    fields = _dpkg_deb("-f", deb).decode("utf-8")
    header = HeaderParser().parsestr(fields)
    name, architecture = header.get("Package", ""), header.get("Architecture", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]*", name) or not re.fullmatch(r"[a-z0-9-]+", architecture):
        raise FormatError("the package names neither itself nor its architecture", where=deb.name)
    return _Package(
        fields.rstrip("\n"),
        name,
        architecture,
        header.get("Multi-Arch") == "same",
        _dpkg_deb("--fsys-tarfile", deb),
        _dpkg_deb("--ctrl-tarfile", deb),
    )


def _dpkg_deb(action: str, deb: Path) -> bytes:
    try:
        done = subprocess.run(["dpkg-deb", action, deb], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise MissingDependencyError("dpkg-deb is needed to unpack Debian's packages") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        raise FormatError(f"not a Debian package: {lines[-1] if lines else 'no reason given'}", where=deb.name)
    return done.stdout


def _members(package: _Package) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(package.files)) as archive:
        for member in archive:
            if ".." in PurePosixPath(member.name).parts or member.name.startswith("/"):
                raise FormatError(f"the package contains the path {member.name}", where=package.name)
            yield member


def _absolute(member: tarfile.TarInfo) -> str:
    return "/" + member.name.removeprefix(".").strip("/")


def _is_special(member: tarfile.TarInfo) -> bool:
    return bool(member.uid or member.gid or (member.mode & _SPECIAL and not member.issym()))


def _extract(package: _Package, root: Path) -> None:
    # GNU tar follows the existing links of merged /usr, and is much faster than Python's tarfile
    options = ["--no-same-owner", "--preserve-permissions", "--keep-directory-symlink", "--warning=no-timestamp"]
    done = subprocess.run(
        ["tar", "-C", root, "-x", "-f", "-", *options], input=package.files, capture_output=True, check=False
    )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        raise InputError(f"cannot unpack: {lines[-1] if lines else 'no reason given'}", where=package.name)


class _Database:
    """/var/lib/dpkg of the new system, in which every package is unpacked and none configured (deb(5), dpkg(1))."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._dpkg = root / "var/lib/dpkg"
        self._status: list[str] = []
        self._path_triggers: list[str] = []
        self._named_triggers: dict[str, list[str]] = {}

    def add(self, package: _Package, paths: Sequence[str]) -> None:
        """Note that ``package`` is unpacked and that ``paths`` are its files."""
        info = self._dpkg / "info"
        info.mkdir(parents=True, exist_ok=True)
        (info / f"{package.info_name}.list").write_text("\n".join(paths) + "\n", encoding="utf-8")
        kept_settings: list[str] = []
        with tarfile.open(fileobj=io.BytesIO(package.control)) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is None or name == "control":
                    continue
                data = stream.read()
                target = info / f"{package.info_name}.{name}"
                target.write_bytes(data)
                target.chmod(member.mode & 0o755)
                if name == "conffiles":
                    kept_settings = self._settings(data.decode("utf-8"))
                elif name == "triggers":
                    self._add_triggers(package.name, data.decode("utf-8"))
        first, rest = package.fields.split("\n", 1)
        lines = [first, "Status: install ok unpacked", rest]
        if kept_settings:
            lines += ["Conffiles:", *kept_settings]
        self._status.append("\n".join(lines))

    def _settings(self, text: str) -> list[str]:
        """Return the lines of the field Conffiles: configuration files with the digests of what was shipped."""
        found = []
        for line in text.splitlines():
            if line.startswith("/"):
                data = (self._root / line.strip().lstrip("/")).read_bytes()
                found.append(f" {line.strip()} {hashlib.md5(data, usedforsecurity=False).hexdigest()}")
        return found

    def _add_triggers(self, package: str, text: str) -> None:
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            if len(words) != 2 or not words[0].startswith("interest"):
                continue
            interested = f"{package}/noawait" if words[0].endswith("-noawait") else package
            if words[1].startswith("/"):
                self._path_triggers.append(f"{words[1]} {interested}")
            elif re.fullmatch(r"[\w.+:-]+", words[1]):
                self._named_triggers.setdefault(words[1], []).append(interested)

    def write(self) -> None:
        """Write the files that describe all packages."""
        for folder in ("info", "triggers", "updates", "alternatives", "parts"):
            (self._dpkg / folder).mkdir(parents=True, exist_ok=True)
        (self._dpkg / "info/format").write_text("1\n", encoding="ascii")
        (self._dpkg / "status").write_text("".join(f"{entry}\n\n" for entry in self._status), encoding="utf-8")
        (self._dpkg / "available").touch()
        triggers = self._dpkg / "triggers"
        (triggers / "File").write_text("".join(f"{line}\n" for line in self._path_triggers), encoding="utf-8")
        (triggers / "Unincorp").touch()
        for name, interested in self._named_triggers.items():
            (triggers / name).write_text("".join(f"{line}\n" for line in interested), encoding="utf-8")
