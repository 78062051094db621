#!/usr/bin/env bash
# Everything, with Go, Python 3 and Redis on the machine: builds millrace and the two
# programs in Go, installs the pinned packages into .venv, and runs main.py.
# With $MILLRACE and $PYTHON, a program and an interpreter that are there are used, and
# with $REDIS_URL a Redis.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$here/.venv"
cd "$here/../.."
if [ -z "${MILLRACE:-}" ]; then
	MILLRACE=$here/.venv/millrace
	go build -o "$MILLRACE" ./cmd/millrace
fi
go build -o "$here/.venv/" ./examples/once/consumer ./examples/once/producer
if [ -z "${PYTHON:-}" ]; then
	PYTHON=$here/.venv/bin/python
	if ! cmp -s "$here/requirements.txt" "$here/.venv/installed"; then
		python3 -m venv "$here/.venv"
		"$PYTHON" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
		cp "$here/requirements.txt" "$here/.venv/installed"
	fi
fi
exec "$PYTHON" -B "$here/main.py" --millrace "$MILLRACE" "$@"
