"""`phenaki train-student` in a clone, before anything is installed as a command."""

from start import run

if __name__ == "__main__":
    run("train-student")
