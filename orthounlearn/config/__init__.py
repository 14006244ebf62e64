"""Configuration: the schema, the resolvers, and the one place that builds objects from it."""
