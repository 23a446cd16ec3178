"""The API, described: the OpenAPI document and the parts that it is made of."""
