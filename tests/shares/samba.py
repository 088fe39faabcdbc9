"""A real Samba server on loopback with deploy/samba/xray-inbox.conf, and a real SMB client.

It runs in a folder of its own, on a free port, as the user of the tests; nothing of a Samba server
that the machine may have is touched. Its users are
some that every Debian has; they get a password here.
"""

from __future__ import annotations

import getpass
import grp
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import smbclient
from smbclient._io import SMBFileTransaction, SMBRawIO, set_info
from smbprotocol.file_info import (
    FileBasicInformation,
    FileEndOfFileInformation,
    FileInformationClass,
    FileRenameInformation,
    InfoType,
)
from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    RequestedOplockLevel,
    ShareAccess,
    SMB2SetInfoRequest,
)

from machine import lacking

SHARES = Path(__file__).parents[2] / "deploy" / "samba" / "xray-inbox.conf"
SENDER, STRANGER, PASSWORD = "games", "news", "Secret-19"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
HOST = "127.0.0.1"
_LOGGING_IN = threading.Lock()
_FOLDERS = {
    "private dir": "private",
    "lock directory": "lock",
    "state directory": "state",
    "cache directory": "cache",
    "pid directory": "pid",
    "ncalrpc dir": "ncalrpc",
}


def missing() -> str | None:
    """Why no Samba server can be run here; None if it can."""
    return lacking(
        smbd="samba", smbpasswd="samba", testparm="samba-common-bin", smbclient="smbclient"
    )


class Samba:
    """The server; `root` is what it exports in the place of /srv/xray."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder, self._root = folder, root
        self.config = folder / "smb.conf"
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port: int = free.getsockname()[1]
        for name in (*_FOLDERS.values(), "log"):
            (folder / name).mkdir(parents=True)
        self.config.write_text(self._global() + exported(root))
        for user in (SENDER, STRANGER):
            subprocess.run(
                [program("smbpasswd"), "-c", self.config, "-s", "-a", user],
                input=f"{PASSWORD}\n{PASSWORD}\n",
                text=True,
                check=True,
                capture_output=True,
            )

    def _global(self) -> str:
        places = "".join(f"{key} = {self._folder / name}\n" for key, name in _FOLDERS.items())
        return (
            "[global]\nserver role = standalone server\nmap to guest = never\n"
            "server min protocol = SMB2_10\ndisable netbios = yes\nload printers = no\n"
            "interfaces = 127.0.0.1/8\nbind interfaces only = yes\n"
            f"log file = {self._folder}/log/smbd\n{places}"
        )

    def start(self) -> None:
        command = [program("smbd"), "-F", "--no-process-group", "-s", str(self.config)]
        with (self._folder / "log" / "output").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "-p", str(self.port), "-l", str(self._folder / "log")],
                stdin=subprocess.PIPE,  # at its end smbd ends too: it does not outlive the tests
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex((HOST, self.port)) == 0:
                    return
            assert self._process.poll() is None, (self._folder / "log" / "output").read_text()
            time.sleep(0.05)
        raise RuntimeError("smbd does not answer")

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def client(self, user: str = SENDER) -> Client:
        return Client(self.port, user)


def program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    assert found is not None
    return found


def exported(root: Path) -> str:
    """The shares as they are shipped, but for paths and users."""
    text = SHARES.read_text(encoding="utf-8")
    ours = {
        r"(path) = /srv/xray(.*)": rf"\1 = {root}\2",
        r"(valid users) = @xray": rf"\1 = {SENDER}",
        r"(force user) = xray-watcher": rf"\1 = {getpass.getuser()}",
        r"(force group) = xray": rf"\1 = {grp.getgrgid(os.getgid()).gr_name}",
    }
    for pattern, replacement in ours.items():
        text, count = re.subn(rf"(?m)^    {pattern}$", f"    {replacement}", text)
        assert count == 2, f"{pattern} stands in both shares"
    return text


class Client:
    """One connection of one user; each has its own, for threads."""

    def __init__(self, port: int, user: str) -> None:
        self._cache: dict[str, Any] = {}
        self.options: dict[str, Any] = {
            "username": user,
            "password": PASSWORD,
            "port": port,
            "connection_cache": self._cache,
        }
        self.connect()

    def connect(self) -> None:
        """Log in, one client after the other: the library has been seen to hang when many do so."""
        with _LOGGING_IN:
            smbclient.register_session(HOST, connection_timeout=30, **self.options)

    def path(self, name: str, share: str = "xray-inbox") -> str:
        return rf"\\{HOST}\{share}\{name}".rstrip("\\")

    def open(self, path: str, mode: str = "wb", share_access: str | None = None) -> SMBRawIO:
        """An unbuffered file; `share_access` is what others may do meanwhile: r, w, d."""
        return smbclient.open_file(
            path, mode, buffering=0, share_access=share_access, **self.options
        )

    def open_as_named(self, name: str, *, writes: bool, renamed_to: str | None = None) -> None:
        """Open a name, and perhaps rename it, exactly as given; smbclient would tidy up its dots.

        Raises:
            SMBException: the server refuses.
        """
        tree, _ = smbclient._pool.get_smb_tree(self.path(""), **self.options)
        file = Open(tree, name)
        access = FilePipePrinterAccessMask
        file.create(
            ImpersonationLevel.Impersonation,
            access.GENERIC_WRITE | access.DELETE if writes else access.GENERIC_READ,
            0,
            ShareAccess.FILE_SHARE_READ,
            CreateDisposition.FILE_OVERWRITE_IF if writes else CreateDisposition.FILE_OPEN,
            CreateOptions.FILE_NON_DIRECTORY_FILE,
            oplock_level=RequestedOplockLevel.SMB2_OPLOCK_LEVEL_BATCH,
        )
        try:
            assert file.oplock_level == RequestedOplockLevel.SMB2_OPLOCK_LEVEL_NONE
            if renamed_to is not None:
                _rename(file, renamed_to)
        finally:
            file.close()

    def call(self, function: str, *arguments: Any, **more: Any) -> Any:
        """A function of smbclient, by its name."""
        return getattr(smbclient, function)(*arguments, **self.options, **more)

    def close(self) -> None:
        smbclient.reset_connection_cache(fail_on_error=False, connection_cache=self._cache)

    def cut(self, file: SMBRawIO) -> None:
        """The client is gone, as with its cable: the open file is not closed in order."""
        file.fd._connected = False
        for connection in self._cache.values():
            connection.disconnect(close=False)
        self._cache.clear()
        self.connect()


def _rename(file: Open, name: str) -> None:
    information = FileRenameInformation()
    information["replace_if_exists"] = True
    information["file_name"] = name
    request = SMB2SetInfoRequest()
    request["info_type"] = InfoType.SMB2_0_INFO_FILE
    request["file_info_class"] = FileInformationClass.FILE_RENAME_INFORMATION
    request["file_id"] = file.file_id
    request["buffer"] = information.pack()
    tree = file.tree_connect
    sent = file.connection.send(request, tree.session.session_id, tree.tree_connect_id)
    file.connection.receive(sent)


def set_size(file: SMBRawIO, size: int) -> None:
    """Tell the size before the content, as Windows does."""
    information = FileEndOfFileInformation()
    information["end_of_file"] = size
    with SMBFileTransaction(file) as transaction:
        set_info(transaction, information)


def set_attributes(file: SMBRawIO, *, read_only: bool) -> None:
    information = FileBasicInformation()
    information["file_attributes"] = 1 if read_only else 128  # normal
    with SMBFileTransaction(file) as transaction:
        set_info(transaction, information)


def set_mtime(file: SMBRawIO, filetime: int) -> None:
    """Set the old time back before closing, as Windows does; in 100 ns since 1601."""
    information = FileBasicInformation()
    for name in ("creation_time", "last_access_time", "last_write_time", "change_time"):
        information[name] = filetime
    information["file_attributes"] = 0
    with SMBFileTransaction(file) as transaction:
        set_info(transaction, information)


@contextmanager
def serving(folder: Path, root: Path) -> Iterator[Samba]:
    """A server that is stopped in the end."""
    samba = Samba(folder, root)
    samba.start()
    try:
        yield samba
    finally:
        samba.stop()
