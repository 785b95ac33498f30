#!/usr/bin/env python3
"""The one door: `up` starts everything on this machine, `serve` one part, `test` runs the tests; the rest are Django's.

`up` and `test` must work before anything is installed, so they never touch Django here (mailapi/up, standard library
only). This file keeps to syntax that old Pythons can read, so that they get a sentence instead of a SyntaxError.
"""

import os
import sys


def main():
    # type: () -> int
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        sys.stderr.write("manage.py: Python 3.11 to 3.14 is needed, this is %d.%d\n" % sys.version_info[:2])  # noqa: UP031
        return 1
    if sys.argv[1:2] in (["up"], ["test"]):
        from mailapi.up.main import main as run

        return run(sys.argv[1:])
    if sys.argv[1:2] == ["serve"]:
        from mailapi.up.serve import main as serve

        return serve(sys.argv[2:])

    from mailapi.up.bootstrap import enter_if_made

    enter_if_made()
    # these need no database: two read files and text, one stands outside of the installation
    bare = sys.argv[1:2] in (["read_report"], ["classify_reply"], ["canary"])
    settings = "deliveries.management.bare" if bare else "mailapi.settings"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings)
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.stderr.write("manage.py: nothing is installed yet; `python3 manage.py up` does it\n")
        return 1
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as e:
        sys.stderr.write("manage.py: %s\n" % e)  # noqa: UP031
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
