"""A file is replaced whole or not at all.

read_bytes, read_text, read_secret, check_mode    what is read is bounded, regular, and not open to others
replace, create, make_folder, mode_of             what is written is all there or not there, also over a power cut
"""

from peerupd.files.atomic import create, make_folder, replace
from peerupd.files.reading import check_mode, mode_of, read_bytes, read_secret, read_text

__all__ = ["check_mode", "create", "make_folder", "mode_of", "read_bytes", "read_secret", "read_text", "replace"]
