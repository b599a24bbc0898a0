"""`python Main.py`: how your voice sounds, live from the microphone. See ser_embed/live.py."""

try:
    from ser_embed.live import main
except KeyboardInterrupt:  # importing torch takes seconds
    raise SystemExit(130) from None

if __name__ == "__main__":
    raise SystemExit(main())
