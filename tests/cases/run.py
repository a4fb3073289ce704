#!/usr/bin/env python3
"""Runs the programs beside this file with a server, one after the other: run.py SERVER [NAME ...]"""
import pathlib, subprocess, sys

SECONDS = 120  # for one program; the longest takes 40 on two busy cores

here = pathlib.Path(__file__).parent
server = str(pathlib.Path(sys.argv[1]).resolve())
passed, failed = 0, 0
for program in sorted(here.glob('[0-9][0-9]-*.py')):
    if len(sys.argv) > 2 and not any(name in program.name for name in sys.argv[2:]):
        continue
    try:
        run = subprocess.run([sys.executable, str(program), server], capture_output=True, text=True, timeout=SECONDS)
        ok, said = run.returncode == 0, (run.stdout + run.stderr).strip()
    except subprocess.TimeoutExpired:
        ok, said = False, f'no end within {SECONDS} s'
    passed, failed = passed + ok, failed + (not ok)
    print(f'test {program.stem} ... {"ok" if ok else "FAILED"}', flush=True)
    if not ok:
        print(said, flush=True)
print(f'\ntest result: {"FAILED" if failed else "ok"}. {passed} passed; {failed} failed')
sys.exit(1 if failed else 0)
