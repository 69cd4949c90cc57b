"""What goes over the wire: pydantic models of requests and answers, used by the server and the client."""
