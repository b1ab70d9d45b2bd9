#!/bin/sh
# The allocator is freestanding: its objects need nothing from outside but each other and the four
# functions that a compiler may call by itself (memcpy, memmove, memset, memcmp).
#   frame_freestanding.sh ARCHIVE [SANITIZERS]
set -eu
[ $# -lt 2 ] || { echo "skipped: a sanitizer ($2) adds calls of its own"; exit 77; }
archive=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
members=$(nm -A "$archive" 2>/dev/null | sed -n 's/^[^:]*:\([^:]*\):.* T \(morsel\|mrs\)_frames_.*/\1/p' | sort -u)
[ -n "$members" ] || { echo "no object of the frame room in $archive"; exit 1; }
for member in $members; do ar x "$archive" "$member"; done
nm $members | sed -n 's/.* [TRDBtV] //p' | sort -u >defined
nm -u $members | sed -n 's/^ *U //p' | sort -u >needed
outside=$(comm -23 needed defined |
	grep -vxE 'memcpy|memmove|memset|memcmp|mrs_probe_hit|mrs_check_failed|_GLOBAL_OFFSET_TABLE_' || true)
[ -z "$outside" ] || { echo "the frame room needs from outside: $outside"; exit 1; }
echo "freestanding: $(echo "$members" | wc -w) objects"
