#!/bin/sh
# Makes a Python environment with the clients and servers that Oncegate is tried with, from PyPI:
#
#   prepare.sh DIRECTORY
#
# Does nothing where it is there already. Exits 69, and says why on stderr, where it cannot be made.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
wanted=$here/requirements.txt

cmp -s "$wanted" "$1/installed" && exit 0
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    echo 'there is no python3 that can make environments (Debian: python3-venv)' >&2
    exit 69
fi
rm -rf "$1"
if python3 -m venv "$1" && "$1/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$wanted"
then
    cp "$wanted" "$1/installed"
else
    echo "the packages of $wanted cannot be installed" >&2
    exit 69
fi
