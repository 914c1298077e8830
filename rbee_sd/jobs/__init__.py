"""Jobs: what was accepted, what happened to it, who listens. Front process, IOLoop thread."""
