"""OpenAPI: the words in which operations are described, and the document that is made of them.

The operations themselves are in `api.operations`, their requests and answers in `sdk` and `manage`.
"""
