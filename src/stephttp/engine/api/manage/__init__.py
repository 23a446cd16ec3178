"""The part of the API that people and the command line use: looking at runs, and acting on them.

The `..._views` describe what they see, out of the values of `reading`. SDKs need nothing of this.
"""
