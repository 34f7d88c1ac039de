"""llm-local: run open language models on your own machine. The local runner that never lies.

Importing this package loads neither torch nor transformers; the doors `model_loader` and `generator` do.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
