#!/bin/sh
# The hardening that a release binary must have, read off its ELF file: PIE, full RELRO, no executable stack, stack protector,
# FORTIFY. Usage: check_hardening.sh BINARY
set -eu
exe=${1:?usage: check_hardening.sh BINARY}
n_failed=0
check() { # NAME, and whether it holds
	if [ "$2" = 0 ]; then
		echo "ok: $1"
	else
		echo "NOT OK: $1"
		n_failed=$((n_failed + 1))
	fi
}
holds() { if "$@" >/dev/null; then echo 0; else echo 1; fi; }

header=$(readelf -hW "$exe")
segments=$(readelf -lW "$exe")
dynamic=$(readelf -dW "$exe")
symbols=$(readelf --dyn-syms -W "$exe")

in_text() { printf '%s\n' "$1" | grep -qE "$2"; }
check 'position independent (PIE)' "$(holds in_text "$header$dynamic" 'Type:.*DYN.*Position-Independent|FLAGS_1.* PIE')"
check 'read-only relocations (RELRO)' "$(holds in_text "$segments" 'GNU_RELRO')"
check 'bound at start (NOW)' "$(holds in_text "$dynamic" 'BIND_NOW|FLAGS_1.* NOW')"
check 'no executable stack (NX)' "$(holds in_text "$segments" 'GNU_STACK.* RW +0x')"
check 'stack protector' "$(holds in_text "$symbols" '__stack_chk_fail')"
check 'FORTIFY' "$(holds in_text "$symbols" '__[a-z]+_chk(@| |$)')"
if printf '%s\n' "$segments" | grep -E '^ +LOAD ' | grep -q ' RWE '; then
	check 'no segment both writable and executable' 1
else
	check 'no segment both writable and executable' 0
fi
[ "$n_failed" -eq 0 ]
