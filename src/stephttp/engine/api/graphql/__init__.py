"""`/v0/gql`: the queries with which the dashboards and test suites of Inngest read runs and events.

`types.graphql` is all that can be asked. graphql-core (`stephttp[graphql]`) parses and carries out;
only `executing` and `query_limits` import it, and only when a query comes.
"""
