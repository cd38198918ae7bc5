"""What systems put beside people's files: thumbnails, waste bins, snapshots. Never an image."""

from __future__ import annotations

from typing import Final

__all__ = ["LITTER", "is_litter"]

# Files or folders, in small letters: names are compared without regard to case. Closed, and told in
# docs/formats.md; a name with a dot before it is hidden already (.DS_Store, .Trash-1000).
LITTER: Final = frozenset(
    {
        # Windows
        "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
        # Linux, at the top of a disk: of root alone, and what a repair has found
        "lost+found",
        # macOS: in archives, on network drives, and a folder's picture
        "__macosx", "network trash folder", "temporary items", "icon\r",
        # Synology, QNAP and NetApp
        "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb",
        "~snapshot",
    }
)  # fmt: skip


def is_litter(path: str) -> bool:
    """Whether a file or folder is litter or lies in some, by the names of its path.

    Example:
        >>> is_litter("a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg"), is_litter("a/Thumbs.db.jpg")
        (True, False)
    """
    return any(name in LITTER or name == ".ds_store" for name in path.lower().split("/"))
