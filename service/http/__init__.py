"""The HTTP application: routes, middleware, bodies, problems, the API document."""
