"""Makes hollow NVIDIA libraries for torch's CUDA build: `hollow_libraries.py TORCH_LIB FOLDER`.

torch's libraries want NVIDIA's to be there when they are loaded. Without a GPU nothing calls them: libraries with the
same names and symbols that do nothing save 4 GB. They go on LD_LIBRARY_PATH. Needs gcc, readelf and nm.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

KEPT = ("libcudart", "libcupti")  # small, and called when torch is loaded
DRIVER = "libcuda.so.1"  # loaded on demand only
_NVIDIA = re.compile(r"lib(cu|nccl|nvshmem)")
# Symbols without a version are given to the library whose name they begin with.
_PREFIX = re.compile(r"nvshmem|cublas|cudnn|cufft|cusparseLt|cusparse|cusolver|curand|nccl|cuFile")

Wanted = dict[str, dict[str, set[str]]]  # library -> version of the symbols, "" for none -> symbols


def wanted_symbols(torch_lib: Path) -> Wanted:
    """What torch's libraries want of NVIDIA's."""
    wanted: Wanted = defaultdict(lambda: defaultdict(set))
    for library in sorted(torch_lib.glob("lib*.so")):
        needed = [
            name
            for name in re.findall(r"\(NEEDED\).*\[(.*)\]", _output("readelf", "-dW", library))
            if _NVIDIA.match(name) and not name.startswith(KEPT) and name != DRIVER
        ]
        versions = _versions(library, needed)
        for name in needed:
            wanted[name].update({version: set() for version, home in versions.items() if home == name})
    for library in sorted(torch_lib.glob("lib*.so")):
        _add_symbols(library, wanted)
    return wanted


def _versions(library: Path, needed: list[str]) -> dict[str, str]:
    """Which needed library each version of a symbol belongs to."""
    homes, file = {}, ""
    for line in _output("readelf", "-VW", library).splitlines():
        if match := re.search(r"File: (\S+)", line):
            file = match[1]
        elif (match := re.search(r"Name: (\S+)", line)) and file in needed:
            homes[match[1]] = file
    return homes


def _add_symbols(library: Path, wanted: Wanted) -> None:
    """Adds the undefined symbols of a library."""
    homes = {version: name for name, versions in wanted.items() for version in versions if version}
    undefined = _output("nm", "-D", "--undefined-only", "--with-symbol-versions", library)
    for symbol, version in re.findall(r" U (\w+)@+(\S+)", undefined):
        if version in homes:
            wanted[homes[version]][version].add(symbol)
    for symbol in re.findall(r" U (\w+)$", undefined, re.MULTILINE):
        if prefix := _PREFIX.match(symbol):
            for name in wanted:
                if name.lower().startswith(f"lib{prefix[0].lower()}"):
                    wanted[name][""].add(symbol)


def make_library(name: str, versions: dict[str, set[str]], folder: Path) -> None:
    """Compiles one library whose functions only trap."""
    source, script = folder / "stub.c", folder / "stub.map"
    symbols = sorted(set().union(*versions.values()))
    source.write_text("".join(f"void {symbol}(void) {{ __builtin_trap(); }}\n" for symbol in symbols) or ";\n")
    command = ["gcc", "-w", "-shared", "-fPIC", "-fno-builtin", f"-Wl,-soname,{name}", "-o", folder / name, source]
    named = {version: names for version, names in versions.items() if version}
    if named:
        blocks = (
            f"{version} {{ global: {' '.join(f'{symbol};' for symbol in sorted(names))} }};\n"
            for version, names in named.items()
        )
        script.write_text("".join(blocks))
        command.append(f"-Wl,--version-script={script}")
    subprocess.run(command, check=True)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    place = Path(sys.argv[2])
    place.mkdir(parents=True, exist_ok=True)
    for library_name, symbol_versions in wanted_symbols(Path(sys.argv[1])).items():
        make_library(library_name, symbol_versions, place)
