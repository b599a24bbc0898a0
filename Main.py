"""`python Main.py`: how your voice sounds, live from the microphone. See ser_embed/live/."""

if __name__ == "__main__":
    try:
        from ser_embed.live.__main__ import main

        raise SystemExit(main())
    except KeyboardInterrupt:  # before the command was under way
        raise SystemExit(130) from None
