"""peerupd: the daemon that lets people reach their own machines' services, through any NAT, with no account.

The floor plan (imports go down only; checked by import-linter, see `pyproject.toml`):

    main        the front door: arguments, logging, exit code
    frontends   the doors: HTTP over a Unix socket, and who may call what
    control     the hall: every verb once, and the assembler
    features    what a user can name   |  p2p  the network   |  linux  kernel and service manager
    trust       the gatehouse          |  config  the archive
    files       a file is replaced whole or not at all
    wire        dialogues as machines: bytes in, events out
    model       words of the house: pure values
"""
