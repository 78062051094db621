import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python-shared"))

from native import Native  # noqa: E402
from program import main  # noqa: E402

if __name__ == "__main__":
    main(Native())
