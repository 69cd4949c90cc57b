"""`eigenlens sync`: bring a gallery in step with its folders, once or as long as they change."""

from __future__ import annotations

import argparse
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from eigenlens.model.runtime.open import open_encoder
from eigenlens.service.api.report import Report, merge_reports
from eigenlens.service.commands.build import ProgressBar
from eigenlens.service.commands.options import (
    configure_limits,
    configure_report,
    configure_store,
    limits_of,
    print_report,
)
from eigenlens.service.gallery.folders import known_folders
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.nodes import require_images
from eigenlens.service.gallery.store.records import Folder
from eigenlens.service.gallery.sync import sync_folder

EPILOG = """examples:
  eigenlens sync --gallery galleries/mine --dry-run --list     tell what would be done
  eigenlens sync --gallery galleries/mine
  eigenlens sync --gallery galleries/mine --name cam1
  eigenlens sync --gallery galleries/mine --watch              go on as files change

Images are added, replaced, moved and removed as their files were. A moved image keeps its code and its metadata. A
running service finds all changes within a second, without a rebuild. Nothing is removed because of a folder that is
not there, empty or not readable: its disk may not be mounted. To continue an interrupted sync, run it again."""

# Files that are being copied change for a while.
_SETTLE_MS = 1000
_LOOK_MS = 2000
_LOCK_TIMEOUT_S = 600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, required=True, help="directory of the gallery")
    parser.add_argument("--name", help="name of one folder (default: all folders of the gallery)")
    parser.add_argument("--dry-run", action="store_true", help="change nothing; tell what would be done")
    parser.add_argument("--watch", action="store_true", help="go on until interrupted, as files change")
    configure_store(parser)
    configure_limits(parser)
    configure_report(parser)


def run(args: argparse.Namespace) -> int:
    """Sync, with progress on standard error. Raises: EigenlensError."""
    gallery = Gallery(args.gallery, store=args.store)
    with closing(gallery.store), closing(gallery.serving()):
        folders = known_folders(gallery.store, name=args.name)
        report = sync_all(gallery, folders, args)
        print_report(report, args)
        if args.watch:
            _watch(gallery, folders, args)
    return 1 if report.warnings else 0


def sync_all(gallery: Gallery, folders: list[Folder], args: argparse.Namespace) -> Report:
    """Bring the gallery in step with folders.

    Raises: GalleryBusyError, if another process writes for minutes; SettingsError, if a limit of the environment is
        wrong.
    """
    limits = limits_of(args)
    with gallery.writing(wait_s=_LOCK_TIMEOUT_S), ProgressBar() as progress:
        encoder = require_images(open_encoder(gallery.encoder_path(gallery.current_encoder_id())))
        return merge_reports(
            [sync_folder(gallery, encoder, folder, progress, limits=limits, dry_run=args.dry_run) for folder in folders]
        )


def _watch(gallery: Gallery, folders: list[Folder], args: argparse.Namespace) -> None:
    print("watching; interrupt to end", file=sys.stderr)
    while True:
        present = _present_folders(folders)
        if not present:
            time.sleep(_LOOK_MS / 1000)
            continue
        for changed in _changed_folders(list(present)):
            if changed:
                report = sync_all(gallery, changed, args)
                if report.added or report.replaced or report.moved or report.gone or report.warnings:
                    print_report(report, args)
            if _present_folders(folders) != present:
                break


def _present_folders(folders: list[Folder]) -> dict[Folder, tuple[int, int]]:
    """Return the folders that are there, with device and inode: where a disk is mounted, the path is another folder."""
    present = {}
    for folder in folders:
        try:
            status = folder.path.stat()
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            present[folder] = (status.st_dev, status.st_ino)
    return present


def _changed_folders(folders: list[Folder]) -> Iterator[list[Folder]]:
    """Yield the folders in which something changed: first all of them, as soon as they are watched.

    At least every _LOOK_MS something is yielded, though it be no folder.
    """
    import watchfiles

    paths, first = [folder.path for folder in folders], True
    watching = watchfiles.watch(
        *paths, debounce=_SETTLE_MS, rust_timeout=_LOOK_MS, yield_on_timeout=True, ignore_permission_denied=True
    )
    for changes in watching:
        if first:
            yield folders
            first = False
        else:
            yield [folder for folder in folders if any(Path(path).is_relative_to(folder.path) for _, path in changes)]
