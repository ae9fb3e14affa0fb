"""The page of runs: a table to sort and search, and the curves of those that are chosen beside each other."""

from dataclasses import asdict
from pathlib import Path

from distill.runs.listing import Listing, read_curves
from shared.disk import explain_disk_errors, replace_file
from shared.errors import UsageError
from shared.web_page.fill import fill_page

_PARTS = Path(__file__).parent


def write_list(listing: Listing, home: Path, path: Path) -> None:
    """Write the page of a folder's runs to the file `path`, which becomes whole or stays as it was."""
    if path.is_dir() or path.suffix != ".html":
        raise UsageError(f"--page {path}: give the name of a file that ends in .html")
    content = make_list(listing, home)
    with explain_disk_errors(path):
        replace_file(path, content)


def make_list(listing: Listing, home: Path) -> bytes:
    """Make the page of the runs of the folder `home`."""
    runs = [{**asdict(run), "curves": read_curves(run)} for run in listing.runs]
    others = [{"folder": folder, "why": why} for folder, why in listing.others.items()]
    return fill_page(_PARTS, f"Runs in {home}", ("page.js",), {"runs": runs, "others": others})
