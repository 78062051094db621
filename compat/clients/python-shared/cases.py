"""All cases; the modules register them."""

import content  # noqa: F401
import negative  # noqa: F401
import positions  # noqa: F401
import processor  # noqa: F401
import sending  # noqa: F401
import transport  # noqa: F401
from registry import CASES, Skip

__all__ = ["CASES", "Skip"]
