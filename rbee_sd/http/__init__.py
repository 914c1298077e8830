"""HTTP: the front door. Front process, IOLoop thread; handlers block on nothing."""
