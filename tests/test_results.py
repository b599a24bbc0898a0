"""What the README quotes is what the files in artifacts/results say."""

import json
import re
from pathlib import Path

RESULTS = (
    ("sentiment3-random", "the paper's classes and random split"),
    ("sentiment3-speaker", "the same, test speakers never heard"),
    ("emotion8-ravdess-folds", "RAVDESS, eight emotions, EmoBox's six folds"),
    ("emotion8-ravdess-folds-mini-open", "the same, encoder `mini-open`"),
    ("emotion8-ravdess-folds-random-mini", "the same, untrained control `random-mini`"),
)


def row_of(name: str, told: str, report: dict) -> str:
    """Return a row of the README's table."""
    folds = list(report["folds"].values())
    uar = sum(folds) / len(folds) if folds else report["uar"]
    low, high = report["uar_ci"]
    guess = max(scores["uar"] for scores in report["baselines"].values())
    cells = f"{100 * uar:.1f} [{100 * low:.1f}, {100 * high:.1f}] | {100 * report['wa']:.1f}"
    shared = f"{report['leakage']['shared_speakers']} of {report['leakage']['test_speakers']}"
    link = f"[{told}](artifacts/results/{name}/report.md)"
    return f"| {link} | {cells} | {100 * guess:.1f} | {shared} |"


def test_the_readme_quotes_the_results(project: Path) -> None:
    readme = (project / "README.md").read_text(encoding="utf-8")
    for name, told in RESULTS:
        path = project / "artifacts/results" / name / "report.json"
        row = row_of(name, told, json.loads(path.read_text(encoding="utf-8")))
        assert row in readme, row


def test_every_result_says_how_it_was_made(project: Path) -> None:
    for name, _ in RESULTS:
        folder = project / "artifacts/results" / name
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        assert re.match(r"python -m ser_embed\.(train|finetune) ", card["command"])
        trained = not name.endswith("random-mini")
        assert card["encoder_trained"] is trained
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        assert trained != any("untrained" in warning for warning in report["warnings"])
