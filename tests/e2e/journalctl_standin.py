"""Stands in for journalctl: prints the lines of DIR/journal, as `--output=json --follow` does.

Of its arguments it knows --directory, --no-tail and --after-cursor. It says in DIR/starts how it was started, and
ends with code 3 when there is DIR/die, which it removes.
"""
import json
import os
import sys
import time

args = sys.argv[1:]


def value(name):
    return args[args.index(name) + 1] if name in args else None


directory = value("--directory")
after = value("--after-cursor")
with open(directory + "/starts", "a") as starts:
    starts.write(json.dumps({"pid": os.getpid(), "args": args}) + "\n")


def cursor(line):
    try:
        return json.loads(line)["__CURSOR"]
    except (ValueError, KeyError):
        return None


with open(directory + "/journal") as journal:
    passed = after is None
    if passed and "--no-tail" not in args:
        # The last ten.
        at = [journal.tell()]
        while journal.readline():
            at.append(journal.tell())
        journal.seek(at[-11] if len(at) > 10 else at[0])
    printed = False
    while True:
        at = journal.tell()
        line = journal.readline()
        if not line.endswith("\n"):
            journal.seek(at)
            sys.stdout.flush()
            time.sleep(0.005)
        elif passed:
            sys.stdout.write(line)
        else:
            passed = cursor(line) == after
        if os.path.exists(directory + "/die"):
            sys.stdout.flush()
            os.remove(directory + "/die")
            print("told to end", file=sys.stderr)
            sys.exit(3)
