"""Keys and certificates for tests: made by the operator's own code, laid out as a kubelet lays out a Secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from collective_learner import TlsFiles
from collective_operator.credentials.certificates import BACKDATED, KeyPair, Usage, issue, new_authority, signer_of

LIFE = timedelta(days=1)
COORDINATOR = "digits-coordinator.lab.svc"


def authority() -> KeyPair:
    return new_authority("a task", now=datetime.now(UTC), life=10 * LIFE)


@dataclass
class Pki:
    """One task's authority, and folders with what it has signed."""

    folder: Path
    authority: KeyPair = field(default_factory=authority)
    numbers: count[int] = field(default_factory=count)

    def files(
        self,
        name: str = "127.0.0.1",
        usage: Usage = "server",
        *,
        expired: bool = False,
        signed_by: KeyPair | None = None,
        trusted: KeyPair | None = None,
    ) -> TlsFiles:
        """One side's files, for a name and a use; both authorities are this task's unless told otherwise."""
        folder = self.folder / f"{next(self.numbers)}"
        folder.mkdir()
        for key in ("tls.crt", "tls.key", "ca.crt"):
            (folder / key).symlink_to(f"..data/{key}")
        files = TlsFiles(certificate=folder / "tls.crt", key=folder / "tls.key", authority=folder / "ca.crt")
        self.renew(files, name, usage, expired=expired, signed_by=signed_by, trusted=trusted)
        return files

    def renew(
        self,
        files: TlsFiles,
        name: str = "127.0.0.1",
        usage: Usage = "server",
        *,
        expired: bool = False,
        signed_by: KeyPair | None = None,
        trusted: KeyPair | None = None,
    ) -> KeyPair:
        """Replace all three at once, as a kubelet does: by a link to a new folder."""
        life = -BACKDATED / 2 if expired else LIFE
        pair = issue(signer_of(signed_by or self.authority), name=name, usage=usage, now=datetime.now(UTC), life=life)
        parent = Path(files.certificate).parent
        fresh = parent / f"..{next(self.numbers)}"
        fresh.mkdir()
        (fresh / "tls.crt").write_bytes(pair.certificate)
        (fresh / "tls.key").write_bytes(pair.key)
        (fresh / "ca.crt").write_bytes((trusted or self.authority).certificate)
        link = parent / "..data_tmp"
        link.symlink_to(fresh.name)
        link.replace(parent / "..data")
        return pair
