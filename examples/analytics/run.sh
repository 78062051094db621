#!/usr/bin/env bash
# Everything, with nothing but Go and Python 3 on the machine: builds millrace,
# installs the pinned packages into .venv, and runs main.py with the arguments given.
# With $MILLRACE and $PYTHON, a program and an interpreter that are there are used.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${MILLRACE:-}" ]; then
	MILLRACE=$here/.venv/millrace
	mkdir -p "$here/.venv"
	(cd "$here/../.." && go build -o "$MILLRACE" ./cmd/millrace)
fi
if [ -z "${PYTHON:-}" ]; then
	PYTHON=$here/.venv/bin/python
	if ! cmp -s "$here/requirements.txt" "$here/.venv/installed"; then
		python3 -m venv "$here/.venv"
		"$PYTHON" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
		cp "$here/requirements.txt" "$here/.venv/installed"
	fi
fi
exec "$PYTHON" -B "$here/main.py" --millrace "$MILLRACE" "$@"
