"""xray-watcher: a daemon that scores the chest X-rays dropped into a shared folder.

A research and triage aid, never a diagnosis.
"""

__version__ = "0.1.0"
