"""Makes a C array of a Lua file that ships in the binary. Usage: embed_lua.py NAME FILE.lua OUTPUT.h (NAME is the array's)."""
import pathlib
import sys

name, source, output = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
data = source.read_bytes()
lines = [", ".join(f"0x{b:02x}" for b in data[i:i + 20]) for i in range(0, len(data), 20)]
output.write_text(f"/* Made by tools/embed_lua.py from {source.name} when this was built. */\n#pragma once\n\n"
                  f"static const unsigned char {name}[] = {{\n\t" + ",\n\t".join(lines) + ",\n};\n")
