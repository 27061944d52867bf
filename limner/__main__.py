"""`python -m limner` in, `limner` out."""

from limner import main

if __name__ == "__main__":
    main()
