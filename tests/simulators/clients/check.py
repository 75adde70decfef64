"""Counts what holds and what does not; the last line is the sum."""

import sys

passed, failed = 0, []


def check(what, holds):
    global passed
    if holds:
        passed += 1
    else:
        failed.append(what)
        print("failed:", what)


def done():
    print(f"{passed} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)
