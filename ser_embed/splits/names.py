"""The split rules by name; light, since options and completion need no more."""

__all__ = ["SPLITS"]

SPLITS: dict[str, str] = {
    "random": "80/10/10 of the clips, stratified by class: speakers are on both sides",
    "speaker": "70/15/15 of every corpus's speakers, balanced in class and gender",
    "kfold": "five folds by speaker, stratified by class",
    "loso": "one speaker left out at a time",
    "loco": "one corpus left out at a time",
    "given": "the split column of the CSV",
}
"""What each rule does; `folds:FILE`, a published list, is the one that takes an argument."""
