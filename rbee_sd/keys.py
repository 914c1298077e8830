"""API keys in a file: a name and the SHA-256 of a key on each line, so that the file gives no key away.

Read once, when the front starts, and by `rbee-sd keys`, which writes it. A key has 256 bits of chance: a plain hash of
it cannot be turned back, and takes no time to compare.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path

from rbee_sd.errors import SettingsError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""Nothing that could be an address: clients without a key of their own go by theirs."""
LINE = re.compile(rf"({NAME.pattern})\s+([0-9a-f]{{64}})")


class Keys:
    """Who may call, by name. The name of the one key that a setting holds is empty."""

    def __init__(self, hashes: dict[str, str]) -> None:
        self._hashes = {name: bytes.fromhex(text) for name, text in hashes.items()}

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def name_of(self, key: bytes) -> str | None:
        """Whose key this is; None if nobody's. Takes the same time for every one that is wrong."""
        digest = hashlib.sha256(key).digest()
        matches = [name for name, known in self._hashes.items() if hmac.compare_digest(digest, known)]
        return matches[0] if matches else None


def keys_of(key: str, file: str) -> Keys:
    """The keys that the settings name. Raises `SettingsError`."""
    hashes = {"": fingerprint(key)} if key else {}
    if file:
        named = read(Path(file).expanduser())
        if not named:
            # Else a file whose last key was removed would let everybody in.
            raise SettingsError(f"there is no key in {file}; 'rbee-sd keys add NAME' makes one")
        hashes |= named
    return Keys(hashes)


def fingerprint(key: str) -> str:
    """What is kept of a key: 64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def read(path: Path) -> dict[str, str]:
    """The fingerprints in a file, by name. Raises `SettingsError`, also when others than its owner may read it."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the file of API keys {path}: {error}") from error
    if mode & 0o077:
        raise SettingsError(f"others may read the file of API keys {path}; run: chmod 600 {path}")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None or match[1] in found:
            what = "names a key for the second time" if match else "is no name and SHA-256"
            raise SettingsError(f"line {number} of {path} {what}; 'rbee-sd keys' writes such files")
        found[match[1]] = match[2]
    return found


def add(path: Path, name: str) -> str:
    """Make a key and keep its fingerprint; returns the key, which nothing can tell again. Raises `SettingsError`."""
    if not NAME.fullmatch(name):
        raise SettingsError(
            f"{name[:100]!r} is no name for a key: letters, digits, - and _, a letter first, 64 at most"
        )
    known = read(path) if path.exists() else {}
    if name in known:
        raise SettingsError(f"there is a key {name} already; remove it first")
    key = f"rbee_{secrets.token_urlsafe(32)}"
    _write(path, known | {name: fingerprint(key)})
    return key


def remove(path: Path, name: str) -> None:
    """Drop a key. Raises `SettingsError` when there is none of this name."""
    known = read(path)
    if name not in known:
        raise SettingsError(f"there is no key {name[:100]!r}")
    del known[name]
    _write(path, known)


def _write(path: Path, known: dict[str, str]) -> None:
    aside = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{name} {digits}\n" for name, digits in known.items())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise SettingsError(f"cannot write the file of API keys {path}: {error.strerror}") from error
