#!/bin/sh
# Says plainly which system package is missing, and fails; silent when nothing is.
#   need.sh run|dev PYTHON
set -eu
what=$1 python=$2 missing=

has() { command -v "$1" >/dev/null 2>&1; }
want() { missing="$missing $1"; }

has "$python" || want python3
if has "$python"; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "setup: peerup needs Python 3.11 or newer; $python is $("$python" -V 2>&1)" >&2
        exit 1
    }
    "$python" -c 'import ensurepip, venv' 2>/dev/null || want python3-venv
fi
has git || want git
if [ "$what" = dev ]; then
    has gcc || want gcc
    [ -e /usr/include/gmp.h ] || ls /usr/include/*/gmp.h >/dev/null 2>&1 || want libgmp-dev
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || want python3-dev
fi
[ -z "$missing" ] && exit 0
echo "setup: missing system packages:$missing" >&2
echo "setup: as root, run: apt-get install --no-install-recommends$missing" >&2
exit 1
