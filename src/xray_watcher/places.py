"""Where to look, as the settings have it; importing this imports neither numbers nor pictures."""

from __future__ import annotations

import os

from xray_watcher.config.folders import Folders
from xray_watcher.config.settings import Settings
from xray_watcher.core.naming import WORK_FOLDER
from xray_watcher.errors import Unavailable
from xray_watcher.intake.watcher import Inbox
from xray_watcher.system.advice import refusal
from xray_watcher.system.mounts import is_same_mount


def inbox_of(settings: Settings, work: str) -> Inbox:
    """The inbox as the settings have it, for looking only."""
    intake = settings.intake
    return Inbox(settings.folders.inbox, work, intake.suffixes, intake.ignore)


def work_folder(folders: Folders) -> str:
    """Where claimed files lie: always on the mount of the inbox, which must exist."""
    below_root = os.path.commonpath((folders.inbox, folders.root)) == folders.root
    try:
        if below_root and is_same_mount(folders.inbox, folders.root):
            return os.path.join(folders.root, WORK_FOLDER)
    except OSError as error:
        raise Unavailable(
            "inbox", refusal(f"The inbox {folders.inbox} cannot be seen", error)
        ) from error
    return os.path.join(folders.inbox, WORK_FOLDER)
