#!/usr/bin/env bash
# Makes the virtual environment of the foreign verifier (OpenStack Swift from PyPI; needs nothing of
# Debian's), unless it is there. It goes to INGESTER_VERIFIER_DIR, by default where the tests look.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
directory=${INGESTER_VERIFIER_DIR:-${TMPDIR:-/tmp}/ingester-verifier}
wanted=$(cat "$here/requirements.txt")
if [ "$(cat "$directory/installed" 2>/dev/null || true)" != "$wanted" ]; then
  "${PYTHON:-python3}" -m venv --clear "$directory"
  "$directory/bin/pip" install -q -r "$here/requirements.txt"
  printf '%s\n' "$wanted" >"$directory/installed"
fi
echo "$directory"
