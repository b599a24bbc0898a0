"""`python Main.py`: how your voice sounds, live from the microphone. See ser_embed/live/."""

try:
    from ser_embed.live.stage import main
except KeyboardInterrupt:  # importing torch takes seconds
    raise SystemExit(130) from None

if __name__ == "__main__":
    raise SystemExit(main())
