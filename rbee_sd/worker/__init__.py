"""The front's handle on an engine process. Front process; state on the IOLoop thread, pipes on threads of their own."""
