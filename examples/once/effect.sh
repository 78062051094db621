#!/bin/sh
# The effect of a batch, for "millrace receive --exec": events in JSON on standard input,
# one a line. Its exit status is all that it has to say.
#
# $DIE is for the demonstration: before the effect of that number, the receiver is killed,
# which is this script's parent where it is started with exec.
while IFS= read -r event; do
	id=$(printf '%s\n' "$event" | sed -n 's/.*\\"event_id\\":\\"\([^"\\]*\)\\".*/\1/p')
	[ -n "$id" ] || exit 65 # the event can never be processed
	if [ -n "$DIE" ] && [ "$(redis-cli -u "$REDIS_URL" hlen "$EFFECTS")" = "$((DIE - 1))" ]; then
		kill -9 "$PPID"
		exit 1
	fi
	case $(redis-cli -u "$REDIS_URL" hincrby "$EFFECTS" "$id" 1) in
	'' | *[!0-9]*) exit 75 ;; # Redis is away: try again when it is back
	esac
done
