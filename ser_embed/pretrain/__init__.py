"""Small encoders, pre-trained on unlabelled speech."""
