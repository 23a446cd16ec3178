"""OpenAPI: the words in which operations are described, and the document that is made of them.

What there is to describe is in `api.operations`, in the answers and requests of `sdk` and `manage`.
"""
