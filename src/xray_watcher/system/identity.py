"""Root becomes the user whose folders a command touches, before it opens anything there.

The owner of a folder decides what lies behind each name in it. A command that stays root follows
what they put there, with rights that they do not have.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass

from xray_watcher.errors import UsageError

_MOST_LINKS = 40  # as the kernel has it
_OF_ROOT_S_SESSION = "XDG_"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who can put something else in the place of a folder.

    Attributes:
        uid: their number; never root's.
        gid: the group of what is theirs.
        place: what is theirs: the folder, or a folder or link on the way to it.
    """

    uid: int
    gid: int
    place: str

    @property
    def name(self) -> str:
        """For people; the number where this machine has no such user."""
        account = _account(self.uid)
        return str(self.uid) if account is None else account.pw_name


def find_owner(path: str) -> Owner | None:
    """The first user but root on the way to a path; None where all of the way is root's.

    Whoever has a folder on the way can swap all that lies below it. Nothing is opened, and a link
    is only followed where root has made it.

    Args:
        path: need not exist; then it is the way to it that counts.
    """
    place, left, links = "/", os.path.abspath(path).split("/")[::-1], 0
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            place = os.path.dirname(place)
            continue
        there = os.path.join(place, part)
        try:
            status = os.lstat(there)
            target = os.readlink(there) if stat.S_ISLNK(status.st_mode) else None
        except OSError:
            return None  # it ends here
        if status.st_uid != 0:
            return Owner(status.st_uid, status.st_gid, there)
        if target is None:
            place = there
        elif (links := links + 1) > _MOST_LINKS:
            return None
        else:
            place = "/" if target.startswith("/") else place
            left += target.split("/")[::-1]
    return None


def become_owner(first: str, *others: str) -> Owner | None:
    """As root, become the owner of what a command works on, and never root again.

    Args:
        first: the folder that counts, if it is there.
        others: the next ones; "" for none.

    Returns:
        Who this process has become; None if it stays who it was: it is not root, or all of the
        folders are root's own.

    Raises:
        UsageError: it cannot become that user, or that user cannot do its work.
    """
    if os.geteuid() != 0:
        return None
    owner = find_owner(first)
    if owner is None:
        owner = next(filter(None, (find_owner(path) for path in others if path)), None)
        if owner is None:
            return None
        if os.path.lexists(first):
            raise UsageError(
                f"{owner.place} belongs to the user {owner.name}, and {first} to root. Root does "
                f"not work in a folder of {owner.name}, who cannot use {first}. Give both to one "
                f"user: chown -R {owner.name} {first}"
            )
    _become(owner)
    return owner


def _become(owner: Owner) -> None:
    account = _account(owner.uid)
    if account is None:
        gid, groups = owner.gid or owner.uid, []
    else:
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        # Of the folders' group as the service is; but a user can have folders of a group that
        # they are not in, below a folder with the set-group-ID bit.
        gid = owner.gid if owner.gid in groups else account.pw_gid
    try:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)
    except OSError as error:
        raise UsageError(
            f"{owner.place} belongs to the user {owner.name}, and this command cannot become that "
            f"user ({os.strerror(error.errno or 0)}). Run it as {owner.name}."
        ) from error
    home = owner.place if account is None else account.pw_dir
    os.environ.update(HOME=home, USER=owner.name, LOGNAME=owner.name)
    for name in [name for name in os.environ if name.startswith(_OF_ROOT_S_SESSION)]:
        del os.environ[name]
    if not all(os.access(module, os.R_OK) for module in (os.__file__, __file__)):
        raise UsageError(
            f"{owner.place} belongs to the user {owner.name}, who cannot read this program "
            f"({os.path.dirname(__file__)}, {os.path.dirname(os.__file__)}). Install it where "
            f"{owner.name} can read it, such as /opt."
        )


def _account(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None
