"""The tables of the settings for those who look after the service: `[metrics]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from xray_watcher.config_base import Seconds, Section, allowed, usable_path


class MetricsSettings(Section):
    """`[metrics]`: what Prometheus is told, where it does not ask the web process."""

    textfile: Annotated[
        str, AfterValidator(usable_path), allowed('a path that ends in .prom, or "" for none')
    ] = Field(
        "",
        pattern=r"^$|\.prom$",
        description="A file for the textfile collector of Prometheus' node_exporter, in its "
        "folder, kept up to date by the daemon.",
    )
    textfile_seconds: Seconds = Field(
        15.0, ge=1, le=3600, description="The file is written at most this often."
    )
