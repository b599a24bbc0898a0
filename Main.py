"""`python Main.py`: how your voice sounds, live from the microphone. See ser_embed/live/."""

from ser_embed.live.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
