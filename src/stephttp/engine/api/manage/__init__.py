"""The part of the API that people and the command line use: looking at runs, and acting on them."""
