"""Exceptions that stand for something else than a defect of the program."""


class UserError(ValueError):
    """What was given cannot work.

    The message says where it was given (a config path, a flag, a file), what it was, the rule and
    the nearest good value. Scripts show it as one line, without a traceback (``phenaki.cli.run``).
    """


class Preempted(Exception):
    """The job was told to stop (SIGTERM) and did, with everything saved.

    Scripts exit with 143, which launchers take for "not done: start it again".
    """
