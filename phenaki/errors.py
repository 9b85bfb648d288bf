"""The one exception that stands for a mistake of the user rather than a defect of the program."""


class UserError(ValueError):
    """What was given cannot work.

    The message says where it was given (a config path, a flag, a file), what it was, the rule and
    the nearest good value. Scripts show it as one line, without a traceback (``phenaki.cli.run``).
    """
