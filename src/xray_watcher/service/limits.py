"""What a picture may be, as the settings have it: for the daemon and for the web alike."""

from __future__ import annotations

from xray_watcher.config.settings import Settings
from xray_watcher.intake.images import DecodeLimits


def decode_limits(settings: Settings) -> DecodeLimits:
    """What a picture may be, as the settings have it."""
    intake = settings.intake
    return DecodeLimits(
        max_bytes=intake.max_bytes,
        max_megapixels=intake.max_megapixels,
        min_side=intake.min_side,
        deep_range=settings.images.deep_range,
    )
