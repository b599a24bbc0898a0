"""Labels that follow a voice, from a microphone."""
