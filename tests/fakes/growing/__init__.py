"""A version later than ours, as far as tables go: it expands the big ones, and contracts them again one release on.

Its migrations run beside processes that know nothing of them (tests/e2e/test_rolling.py), with its own settings.
"""
