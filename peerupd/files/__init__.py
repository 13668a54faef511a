"""A file is replaced whole or not at all.

read_bytes, read_text, read_secret, check_mode    what is read is bounded, regular, and not open to others
replace, create, make_folder, mode_of             what is written is all there or not there, also over a power cut
copy_of, keep_copy, drop_copy                     what was good once is there when the file is not any more
"""

from peerupd.files.atomic import create, make_folder, replace
from peerupd.files.last_good import copy_of, drop_copy, keep_copy
from peerupd.files.reading import check_mode, mode_of, read_bytes, read_secret, read_text

__all__ = [
    "check_mode",
    "copy_of",
    "create",
    "drop_copy",
    "keep_copy",
    "make_folder",
    "mode_of",
    "read_bytes",
    "read_secret",
    "read_text",
    "replace",
]
