"""`python -m phenaki COMMAND --flags`: `phenaki COMMAND --flags` of that Python's environment."""

from phenaki.commands.main import main

if __name__ == "__main__":
    main()
