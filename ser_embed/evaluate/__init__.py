"""Trained runs on other clips, under other conditions, and side by side.

Each function takes the options of its command and returns its `Outcome`, having written a folder
of tables and figures: `evaluate_run` scores a run on its own test part, on other stores or on
audio; `cross_corpus` trains on each corpus and tests on each other; `measure_robustness` scores
disturbed test clips; `compare_models` trains models on one split and sets them side by side.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.evaluate.compare import compare_models
    from ser_embed.evaluate.crosscorpus import cross_corpus
    from ser_embed.evaluate.evaluation import evaluate_run
    from ser_embed.evaluate.options import (
        CompareConfig,
        CrossCorpusConfig,
        EvaluateConfig,
        RobustnessConfig,
    )
    from ser_embed.evaluate.robustness import measure_robustness
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "compare": ["compare_models"],
            "crosscorpus": ["cross_corpus"],
            "evaluation": ["evaluate_run"],
            "options": [
                "CompareConfig",
                "CrossCorpusConfig",
                "EvaluateConfig",
                "RobustnessConfig",
            ],
            "robustness": ["measure_robustness"],
        },
    )

__all__ = [
    "CompareConfig", "CrossCorpusConfig", "EvaluateConfig", "RobustnessConfig", "compare_models",
    "cross_corpus", "evaluate_run", "measure_robustness",
]  # fmt: skip
