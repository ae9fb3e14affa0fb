"""The rows' own pictures: found or fetched, looked at for the plan, and made what any teacher takes.

    look(picture)           what a plan needs: the sha256 of the file's bytes, width and height. Decodes nothing
    prepare(picture)        what a teacher is sent: an upright PNG or JPEG file of 8 bits a channel
    prepare_ahead(items)    the same for a stream of requests, in threads
    open_rgb(content)       the pixels of such a file, for a model that runs here

Each raises DataError that names the picture where it cannot be shown: a failed row, and nothing is asked for it.
"""

from harvest.pictures.fetch import fetch_pictures
from harvest.pictures.look import Look, look
from harvest.pictures.prepare import Shown, fit_size, open_rgb, prepare
from harvest.pictures.row import Prepared, describe_preparing, describe_shown, look_at_row, prepare_ahead, prepare_row

__all__ = [
    "Look",
    "Prepared",
    "Shown",
    "describe_preparing",
    "describe_shown",
    "fetch_pictures",
    "fit_size",
    "look",
    "look_at_row",
    "open_rgb",
    "prepare",
    "prepare_ahead",
    "prepare_row",
]
